//! Files into the volumes of a task, and out of them.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as blocking};
use std::thread::Scope;

use bollard::body_try_stream;
use bollard::query_parameters::{
    DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use bytes::BytesMut;
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;

use super::engine_error;
use super::pipe::{Reading, Writing};
use super::run::{Run, Step, volume};
use crate::builder::archive;
use crate::builder::{BuilderError, Entry, ROOT, Result};
use crate::fs;

/// Bytes of what is brought back that go from thread to thread at once.
const GATHERED: usize = 1 << 20;

/// What threads share here; none leaves it in a bad state.
pub(super) fn of<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run<'_> {
    /// Puts entries into the volumes.
    pub(super) fn upload(&self, entries: &[Entry]) -> Result<()> {
        std::thread::scope(|scope| {
            let steps = [Step::Preparing, Step::Building];
            let uploads = steps.map(|step| self.upload_part(scope, entries, step));
            self.engine.all(uploads).map(drop)
        })
    }

    /// Fills one volume. By its own path: what is given to a folder above, some
    /// engines put beside the volume.
    pub(super) async fn upload_part<'scope>(
        &self,
        scope: &'scope Scope<'scope, '_>,
        entries: &'scope [Entry],
        step: Step,
    ) -> Result<()> {
        let part = step.part();
        let is_in = |entry: &Entry| archive::below(&entry.path, part.folder).is_some();
        if !entries.iter().any(is_in) {
            return Ok(());
        }
        let path = format!("{ROOT}/{}", part.folder);
        let container = self.container(step);
        let (sender, receiver) = mpsc::channel(64);
        let writer = scope.spawn(move || archive::write(Writing(sender), entries, part));
        let receiver = Arc::new(Mutex::new(receiver));
        let shared = Arc::clone(&receiver);
        let pieces = stream::poll_fn(move |context| of(&shared).poll_recv(context));
        let options = UploadToContainerOptionsBuilder::default()
            .path(&path)
            .build();
        let client = &self.engine.client;
        let pieces = body_try_stream(pieces);
        let upload = client.upload_to_container(&container, Some(options), pieces);
        let uploaded = upload.await.map_err(engine_error("take the task's files"));
        // The engine may have answered before it had all, or be gone: then the
        // connection may hold the body as long as it likes, and ask for no more.
        of(&receiver).close();
        match writer.join().map_err(|_panic| BuilderError::Panic)? {
            Err(BuilderError::Output(error)) if is_unheard(&error) && uploaded.is_err() => uploaded,
            // A file that cannot be read is the cause of an upload that fails.
            written => written.and(uploaded),
        }
    }

    /// Where a volume's files are, if the engine runs on this machine and this
    /// process may look there. Each volume's name was made up for this task, so
    /// a folder of that name is its.
    fn folder(&self, folder: &str) -> Option<PathBuf> {
        let name = volume(&self.name, folder);
        let inspected = self.engine.client.inspect_volume(&name);
        let mountpoint = self.engine.runtime.block_on(inspected).ok()?.mountpoint;
        let found = PathBuf::from(mountpoint);
        let is_its = found.iter().any(|part| part == name.as_str());
        (is_its && fs::list(&found).is_ok_and(|files| !files.is_empty())).then_some(found)
    }

    /// Moves what the command left, and tells from where, or has it given back.
    pub(super) fn bring(&self, output: &Path) -> Result<Option<PathBuf>> {
        if let Some(folder) = self.folder("work") {
            match archive::take(&folder.join("out"), output) {
                Ok(()) => return Ok(Some(folder)),
                // Files may be out of reach one by one, as a rootless engine's are.
                // What was moved stays, and is not among those that follow.
                Err(BuilderError::File(error)) if !error.is_full() => {}
                Err(refused) => return Err(refused),
            }
        }
        self.bring_back(output).map(|()| None)
    }

    /// Unpacks what the command left.
    fn bring_back(&self, output: &Path) -> Result<()> {
        let options = DownloadFromContainerOptionsBuilder::default()
            .path(&format!("{ROOT}/work/out"))
            .build();
        let client = &self.engine.client;
        let mut pieces = client.download_from_container(&self.name, Some(options));
        let (sender, receiver) = blocking::sync_channel(16);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| archive::read(Reading::new(receiver), output));
            let download = async {
                // Gathered, or the two threads would wake each other for each.
                let mut gathered = BytesMut::with_capacity(GATHERED);
                while let Some(piece) = pieces.next().await {
                    gathered.extend_from_slice(&piece?);
                    if gathered.len() >= GATHERED
                        && sender.send(Ok(gathered.split().freeze())).is_err()
                    {
                        return Ok(()); // the reader has found fault with it
                    }
                }
                let _ = sender.send(Ok(gathered.freeze())); // likewise
                Ok(())
            };
            let downloaded = self.engine.ask("give back what the command left", download);
            if downloaded.is_err() {
                // Not an end that looks like a whole archive's.
                let _ = sender.send(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            drop(sender);
            let read = reader.join().map_err(|_panic| BuilderError::Panic)?;
            downloaded.and(read)
        })
    }
}

/// Whether who writes was told that nobody reads: the reader knows why.
fn is_unheard(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe
}
