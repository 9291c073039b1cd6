//! Metrics and health over HTTP: `/metrics` and `/healthz`.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::machine::Machine;
use crate::plugin::Shared;

/// Largest number of clients at a time.
const CLIENTS: usize = 16;

/// Failures of the resources' registrations.
pub(crate) type Failures = Arc<Mutex<Vec<String>>>;

/// Serves clients until the future is dropped.
pub(crate) async fn serve<M: Machine + 'static>(
    listener: TcpListener,
    shared: Arc<Shared<M>>,
    failures: Failures,
) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else {
            return;
        };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            continue;
        };
        let (shared, failures) = (shared.clone(), failures.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = respond(request.uri().path(), &shared, &failures);
                async move { Ok::<_, Infallible>(response) }
            });
            let http = hyper::server::conn::http1::Builder::new();
            let connection = http.serve_connection(TokioIo::new(stream), service);
            // a client that sends nothing gives its place to another one
            let _ = tokio::time::timeout(std::time::Duration::from_secs(10), connection).await;
            drop(place);
        });
    }
}

fn respond<M: Machine>(
    path: &str,
    shared: &Shared<M>,
    failures: &Mutex<Vec<String>>,
) -> Response<Full<Bytes>> {
    let (status, text) = match path {
        "/metrics" => (StatusCode::OK, shared.metrics()),
        "/healthz" => {
            let mut wrong: Vec<String> = shared.snapshot().unread.iter().cloned().collect();
            let failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
            wrong.extend(failures.iter().cloned());
            match wrong.is_empty() {
                true => (StatusCode::OK, "ok\n".to_owned()),
                false => (StatusCode::SERVICE_UNAVAILABLE, wrong.join("\n") + "\n"),
            }
        }
        _ => (
            StatusCode::NOT_FOUND,
            "there are /metrics and /healthz\n".to_owned(),
        ),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response
        .headers_mut()
        .insert(hyper::header::CONTENT_TYPE, kind);
    response
}
