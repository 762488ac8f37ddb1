//! Asking an image what is in it, by a short container without network.

use std::collections::HashMap;
use std::io::Read;
use std::time::Duration;

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder,
    UploadToContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::images::Pieces;
use super::{Engine, engine_error};
use crate::builder::{BUILDER_ID, BuilderError, Result, unique_name};

/// Label of the containers that are made here.
const LABEL: &str = "quickbuild.check";

/// How long a container may take.
const TIME: Duration = Duration::from_secs(300);

/// What a container may use: far more than a few small compilations do.
const MEMORY: i64 = 4 << 30;
const PROCESSES: i64 = 256;

impl Engine {
    /// Runs a shell script in a container of an image and returns all that it
    /// printed. `files` is a tar that is unpacked at the root before.
    ///
    /// The engine removes the container as soon as the script has ended, also
    /// if nobody is there any more to see it.
    pub(in crate::builder) fn probe(
        &self,
        image: &str,
        files: impl Read + Send + 'static,
        script: &str,
    ) -> Result<String> {
        let name = unique_name();
        self.runtime.block_on(async {
            let created = self.create_probe(&name, image, script).await;
            let printed = match created {
                Ok(()) => {
                    let run = self.run_probe(&name, files);
                    let run = tokio::time::timeout(TIME, run).await;
                    run.unwrap_or_else(|_elapsed| Err(BuilderError::Time { limit: TIME }))
                }
                Err(error) => Err(error),
            };
            if printed.is_err() {
                let force = RemoveContainerOptionsBuilder::default().force(true).build();
                let _ = self.client.remove_container(&name, Some(force)).await; // it may be gone
            }
            printed
        })
    }

    async fn create_probe(&self, name: &str, image: &str, script: &str) -> Result<()> {
        // The script ends even if nobody waits for it.
        let limit = TIME.as_secs().to_string();
        let command = ["timeout", &limit, "sh", "-c", script].map(str::to_owned);
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            entrypoint: Some(Vec::new()),
            cmd: Some(command.into()),
            user: Some(format!("{BUILDER_ID}:{BUILDER_ID}")),
            hostname: Some("builder".to_owned()),
            labels: Some(HashMap::from([(LABEL.to_owned(), name.to_owned())])),
            host_config: Some(HostConfig {
                auto_remove: Some(true),
                cap_drop: Some(vec!["ALL".to_owned()]),
                init: Some(true),
                memory: Some(MEMORY),
                network_mode: Some("none".to_owned()),
                pids_limit: Some(PROCESSES),
                security_opt: Some(vec!["no-new-privileges".to_owned()]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let created = self.client.create_container(Some(options), body).await;
        created.map_err(engine_error("create a container"))?;
        Ok(())
    }

    async fn run_probe(&self, name: &str, files: impl Read + Send + 'static) -> Result<String> {
        let pieces = stream::iter(Pieces(files)).map(|piece| piece.map(Into::into));
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        self.client
            .upload_to_container(name, Some(options), bollard::body_try_stream(pieces))
            .await
            .map_err(engine_error("put files into a container"))?;
        let options = AttachContainerOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .stream(true)
            .build();
        let attached = self.client.attach_container(name, Some(options)).await;
        let attached = attached.map_err(engine_error("attach to a container"))?;
        self.client
            .start_container(name, None)
            .await
            .map_err(engine_error("start a container"))?;
        let printed = attached
            .output
            .try_fold(String::new(), |all, piece| async move {
                Ok(all + &String::from_utf8_lossy(&piece.into_bytes()))
            })
            .await
            .map_err(engine_error("follow a container"))?;
        let removed = WaitContainerOptionsBuilder::default()
            .condition("removed")
            .build();
        // An answer of any kind, or that it is gone already.
        let _ = self.client.wait_container(name, Some(removed)).next().await;
        Ok(printed)
    }
}
