use axum::{Json, Router, extract::{Path, State}, routing::get};
use std::sync::{Arc, Mutex};

type Db = Arc<Mutex<rusqlite::Connection>>;

#[tokio::main]
async fn main() {
    tracing_subscriber::fmt().init();
    let db: Db = Arc::new(Mutex::new(axum_service::open().expect("database")));
    axum_service::add(&db.lock().unwrap(), "hello").expect("insert");
    if std::env::args().nth(1).as_deref() == Some("--once") {
        println!("{}", axum_service::get(&db.lock().unwrap(), 1).expect("note").text);
        return;
    }
    let app = Router::new()
        .route("/notes/{id}", get(|State(db): State<Db>, Path(id): Path<i64>| async move {
            Json(axum_service::get(&db.lock().unwrap(), id).expect("note"))
        }))
        .layer(tower_http::trace::TraceLayer::new_for_http())
        .with_state(db);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    axum::serve(listener, app).await.expect("serve");
}
