//! The admin HTTP server: metrics, health, the cluster as JSON, and a page that draws it.
//!
//! It reads and never changes anything, asks for no password and shows no secret. The node answers
//! its [`AdminRequest`]s over a bounded channel; when it doesn't in time, so does the server say.

mod metrics;
mod status;

#[cfg(test)]
mod fake;

pub use metrics::{Family, Kind, Metrics, describe};
pub use status::{
    ClusterStatus, CopyingStatus, Health, MemberView, MigrationStatus, PartitionView, PartitionsStatus,
    Readiness, SettingsStatus, Standing,
};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::get;
use std::future::Future;
use std::io;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

/// Questions that may wait for the node at once; more are refused.
pub const REQUESTS_MAX: usize = 64;
/// How long the node may take to answer one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The page at `/`. It names no other server.
const PAGE: &str = include_str!("page.html");
/// Only the page's own inline script and style run, and they may talk to this server alone.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; \
     style-src 'unsafe-inline'; connect-src 'self'; img-src data:; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'";

/// A question to the node. Dropping the sender instead of answering is an answer too: the client
/// gets 503.
#[derive(Debug)]
pub enum AdminRequest {
    /// For `/v1/cluster`.
    Cluster(oneshot::Sender<ClusterStatus>),
    /// For `/v1/partitions`.
    Partitions(oneshot::Sender<PartitionsStatus>),
    /// For `/readyz`.
    Readiness(oneshot::Sender<Readiness>),
    /// For `/metrics`.
    Metrics(oneshot::Sender<Metrics>),
}

/// Where the questions go.
pub type AdminSource = mpsc::Sender<AdminRequest>;

/// Serves until `stop` is done; connections in progress are then finished.
///
/// # Errors
///
/// What accepting connections runs into, which ends the server.
pub async fn serve(
    listener: TcpListener,
    source: AdminSource,
    stop: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    axum::serve(listener, router(source)).with_graceful_shutdown(stop).await
}

fn router(source: AdminSource) -> Router {
    Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(prometheus))
        .route("/v1/cluster", get(cluster))
        .route("/v1/partitions", get(partitions))
        .fallback(|| async { (StatusCode::NOT_FOUND, "not found\n") })
        .method_not_allowed_fallback(|| async { (StatusCode::METHOD_NOT_ALLOWED, "GET only\n") })
        .layer(middleware::from_fn(guard))
        .with_state(source)
}

/// Refuses everything but reads, and sets the security headers of every answer.
async fn guard(request: Request, next: Next) -> Response {
    let mut response = match *request.method() {
        Method::GET | Method::HEAD => next.run(request).await,
        _ => (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET, HEAD")], "GET only\n").into_response(),
    };
    let headers: [(HeaderName, &'static str); 5] = [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Asks the node; `None` if it is too busy, stopping or gone.
async fn ask<T>(
    source: &AdminSource,
    question: impl FnOnce(oneshot::Sender<T>) -> AdminRequest,
) -> Option<T> {
    let (answer, answered) = oneshot::channel();
    source.try_send(question(answer)).ok()?;
    tokio::time::timeout(ANSWER_TIMEOUT, answered).await.ok()?.ok()
}

/// The answer to a question that the node didn't answer.
fn silent() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the node does not answer: it is starting, stopping or overloaded\n")
        .into_response()
}

async fn cluster(State(source): State<AdminSource>) -> Response {
    match ask(&source, AdminRequest::Cluster).await {
        Some(mut status) => {
            status.health = status.judge();
            Json(status).into_response()
        }
        None => silent(),
    }
}

async fn partitions(State(source): State<AdminSource>) -> Response {
    match ask(&source, AdminRequest::Partitions).await {
        Some(status) => Json(status).into_response(),
        None => silent(),
    }
}

async fn readyz(State(source): State<AdminSource>) -> Response {
    match ask(&source, AdminRequest::Readiness).await {
        Some(Readiness { ready: true, .. }) => "ready\n".into_response(),
        Some(Readiness { reasons, .. }) => {
            (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", reasons.join("; "))).into_response()
        }
        None => silent(),
    }
}

async fn prometheus(State(source): State<AdminSource>) -> Response {
    match ask(&source, AdminRequest::Metrics).await {
        Some(metrics) => {
            ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics.into_text())
                .into_response()
        }
        None => silent(),
    }
}

#[cfg(test)]
mod tests;
