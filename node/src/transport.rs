//! gRPC over Unix sockets: HTTP/2 without TLS, one service on each socket.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::{Request, Response, Uri};

/// Host of the requests, which a Unix socket does not use.
const ORIGIN: &str = "http://localhost";

/// Serves clients until the future is dropped.
pub async fn serve<S>(listener: UnixListener, service: S)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
{
    let mut clients = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // no descriptor is free: a client that ends frees one
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                    continue;
                };
                let service = TowerToHyperService::new(service.clone());
                clients.spawn(async move {
                    let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    // a client that breaks the protocol is disconnected
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
            Some(_) = clients.join_next() => {}
        }
    }
}

/// Connection of a client.
#[derive(Clone, Debug)]
pub struct Channel(SendRequest<Body>);

impl Channel {
    /// Connects to a socket.
    ///
    /// # Errors
    /// Error of the system, or of HTTP/2.
    pub async fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        let shake =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = shake.await.map_err(io::Error::other)?;
        // ends with the last clone of the channel
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    /// Origin of the requests.
    #[must_use]
    pub fn origin() -> Uri {
        Uri::from_static(ORIGIN)
    }
}

impl Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}
