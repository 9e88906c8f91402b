//! A small load balancer: round robin over the instances that say that they are ready.
//!
//! All requests here are idempotent, so it does what every proxy does with such: where the connection to an instance
//! breaks, or the instance answers that it is not available (503), the request goes to another one. Every other answer
//! is passed on as it is, errors too.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::{Method, Request, StatusCode, header};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::Result;

/// How often an instance is asked whether it is ready.
const PROBE: Duration = Duration::from_millis(100);

/// How long an instance may take for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How many instances are tried for one request.
const TRIES: usize = 3;

pub struct Balancer {
    client: Client<HttpConnector, Body>,
    backends: Mutex<Vec<Arc<Backend>>>,
    turn: AtomicUsize,
    resent: AtomicU64,
}

/// An instance, as seen from here.
struct Backend {
    address: SocketAddr,
    ready: watch::Sender<bool>,
}

impl Balancer {
    pub fn new() -> Self {
        Self {
            client: Client::builder(TokioExecutor::new()).build_http(),
            backends: Mutex::default(),
            turn: AtomicUsize::new(0),
            resent: AtomicU64::new(0),
        }
    }

    /// Takes an instance in, and waits until it is ready.
    pub async fn add(&self, address: SocketAddr) -> Result<()> {
        let backend = Arc::new(Backend { address, ready: watch::Sender::new(false) });
        let mut ready = backend.ready.subscribe();
        tokio::spawn(probe(self.client.clone(), Arc::downgrade(&backend)));
        self.backends.lock().unwrap_or_else(PoisonError::into_inner).push(backend);
        timeout(2 * PATIENCE, ready.wait_for(|ready| *ready)).await??;
        Ok(())
    }

    pub fn remove(&self, address: SocketAddr) {
        let mut backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        backends.retain(|backend| backend.address != address);
    }

    /// How many requests were sent once more.
    pub fn resent(&self) -> u64 {
        self.resent.load(Ordering::Relaxed)
    }

    /// Has a request answered, by whichever instance.
    pub async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes)> {
        let mut failed = String::new();
        for attempt in 0..TRIES {
            let backend = self.next().ok_or_else(|| format!("no instance is ready{failed}"))?;
            self.resent.fetch_add(u64::from(attempt > 0), Ordering::Relaxed);
            match ask(&self.client, backend.address, &method, path, body.clone()).await {
                Ok((StatusCode::SERVICE_UNAVAILABLE, _)) => {
                    failed.push_str(&format!("; {} is not available", backend.address));
                }
                Ok(answer) => return Ok(answer),
                Err(error) => {
                    // Until the next probe.
                    backend.ready.send_replace(false);
                    failed.push_str(&format!("; {}: {error}", backend.address));
                }
            }
        }
        Err(format!("tried {TRIES} times{failed}").into())
    }

    fn next(&self) -> Option<Arc<Backend>> {
        let backends = self.backends.lock().unwrap_or_else(PoisonError::into_inner);
        let ready: Vec<_> = backends.iter().filter(|backend| *backend.ready.borrow()).collect();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        ready.get(turn.checked_rem(ready.len())?).map(|&backend| Arc::clone(backend))
    }
}

/// Asks an instance again and again whether it is ready, until it is removed.
async fn probe(client: Client<HttpConnector, Body>, backend: Weak<Backend>) {
    while let Some(backend) = backend.upgrade() {
        let answer = ask(&client, backend.address, &Method::GET, "/ready", Bytes::new()).await;
        backend.ready.send_replace(answer.is_ok_and(|(status, _)| status == StatusCode::OK));
        drop(backend);
        sleep(PROBE).await;
    }
}

async fn ask(
    client: &Client<HttpConnector, Body>,
    address: SocketAddr,
    method: &Method,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes)> {
    let request = Request::builder()
        .method(method)
        .uri(format!("http://{address}{path}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body))?;
    let answer = async {
        let response = client.request(request).await?;
        let status = response.status();
        Ok((status, to_bytes(Body::new(response.into_body()), 64 * 1024).await?))
    };
    timeout(PATIENCE, answer).await?
}
