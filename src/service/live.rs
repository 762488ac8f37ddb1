//! A build while it goes on, as server-sent events (the HTML standard, 9.2).
//!
//! Any server can tell it, since what is told is in the database; so one that is
//! killed is replaced by the next one that the browser reaches.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response, Sse, sse::Event};
use futures_util::stream;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::answer::Refusal;
use super::builds::board::{self, Build, Try};
use super::web::Shared;

/// How often is looked.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a browser is told before it has to ask again, which it does by itself.
const LONGEST: Duration = Duration::from_secs(600);

/// The script of a build's page.
pub(super) const SCRIPT: &str = include_str!("live.js");

/// What is told, and until when.
struct Course {
    shared: Shared,
    id: i64,
    until: Instant,
    last: String,
    is_over: bool,
}

/// Tells of a build until it is at an end.
pub(super) async fn events(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Response, Refusal> {
    let app = shared.app();
    let id = id.parse().map_err(|_no_number| Refusal::absent())?;
    let permit = app.watched.clone().try_acquire_owned();
    let permit = permit.map_err(|_full| Refusal::busy("too many look at builds").again(10))?;
    if board::by_id(app.database(), id).await?.is_none() {
        return Err(Refusal::new(
            StatusCode::NOT_FOUND,
            "there is no such build",
        ));
    }
    let course = Course {
        shared,
        id,
        until: Instant::now() + LONGEST,
        last: String::new(),
        is_over: false,
    };
    let events = stream::unfold(course, move |course| {
        let _held = &permit;
        next(course)
    });
    Ok(Sse::new(events).into_response())
}

/// The next event, when there is something new.
async fn next(mut course: Course) -> Option<(Result<Event, Infallible>, Course)> {
    if course.is_over {
        return None;
    }
    loop {
        let app = course.shared.app();
        if Instant::now() > course.until || app.is_stopping.load(Ordering::Relaxed) {
            return None;
        }
        // Where the database is away for a moment, the next look tells.
        if let Ok(Some(build)) = board::by_id(app.database(), course.id).await
            && let Ok(tries) = board::tries(app.database(), course.id).await
        {
            let text = told(&build, tries.first());
            if text != course.last {
                course.last.clone_from(&text);
                return Some((Ok(Event::default().event("build").data(text)), course));
            }
            if !matches!(&*build.state, "queued" | "leased") {
                course.is_over = true;
                let end = Event::default().event("end").data("{}");
                return Some((Ok(end), course));
            }
        }
        drop(app);
        sleep(PAUSE).await;
    }
}

fn told(build: &Build, last: Option<&Try>) -> String {
    let log = last.map_or("", |last| &last.log);
    json!({ "state": build.state, "log": log }).to_string()
}
