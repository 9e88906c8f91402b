//! The service, as an application with phasewise looks: it joins the fleet before it listens, serves only while it is
//! current, and leaves the fleet on SIGTERM.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use deadpool_postgres::{Manager, ManagerConfig, Pool, PoolError, RecyclingMethod, Runtime};
use phasewise::{BackfillPolicy, Event, Health, Migrator, Schema};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_postgres::NoTls;

use crate::Result;
use crate::builds::Build;

/// Longer than the load balancer needs to see that an instance is no longer ready: the period of its probe, as often as it
/// must fail, and what it takes to tell all proxies.
const DRAIN: Duration = Duration::from_millis(500);

/// The migrator, as a service has it: with a pool of its own, since requests must not keep it from its heartbeat.
pub fn migrator(pool: Pool, build: &'static Build) -> Migrator {
    let migrator = Migrator::new(pool, &build.migrations).instance("api").observe(|event: &Event<'_>| {
        if let Event::BatchDone { done, .. } = event {
            println!("backfill: {done} rows");
        }
    });
    in_a_minute(migrator)
}

/// Times for a demonstration of a minute, and for nothing else: else a heartbeat is sent every 10 s, an instance expires
/// after 45 s, and the old column stays for 14 days after its last use.
fn in_a_minute(migrator: Migrator) -> Migrator {
    migrator
        .heartbeat(Duration::from_millis(500))
        .expiry(Duration::from_secs(4))
        .grace(Duration::from_secs(2))
        .settle(Duration::from_secs(1))
        .start_wait(Duration::from_secs(3))
        .lease_time(Duration::from_secs(3))
        .poll(Duration::from_millis(500))
        .soak(Duration::from_secs(3))
        .backfill(BackfillPolicy::new().fixed(2_000))
}

/// Serves until SIGTERM.
pub async fn serve(build: &'static Build) -> Result<()> {
    let url = std::env::var("DATABASE_URL")?;
    let mut terminated = signal(SignalKind::terminate())?;
    // Refused here, it never listens, and the deploy stops before it has replaced anything.
    let migrator = migrator(connect(&url)?, build);
    let schema = tokio::select! {
        started = migrator.start() => Arc::new(started?),
        _ = terminated.recv() => return Ok(()),
    };
    let served = listen(connect(&url)?, build, &schema, terminated).await;
    // Nothing is under way any more. Whoever waits for this instance to go need not wait for it to expire.
    let left = schema.leave().await;
    served?;
    Ok(left?)
}

async fn listen(pool: Pool, build: &'static Build, schema: &Arc<Schema>, terminated: Signal) -> Result<()> {
    let draining = Arc::new(AtomicBool::new(false));
    let service = Service { pool, build, schema: Arc::clone(schema), draining: Arc::clone(&draining) };
    let app = Router::new()
        .route("/users/{id}", get(read).put(write))
        .route_layer(middleware::from_fn_with_state(service.clone(), only_while_current))
        .route("/ready", get(ready))
        .route("/health", get(health))
        .with_state(service);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on {}", listener.local_addr()?);
    Ok(axum::serve(listener, app).with_graceful_shutdown(drained(terminated, draining)).await?)
}

/// No longer ready, but still serving, until the balancer has seen it. Then axum ends what is under way.
async fn drained(mut terminated: Signal, draining: Arc<AtomicBool>) {
    terminated.recv().await;
    draining.store(true, Ordering::Relaxed);
    tokio::time::sleep(DRAIN).await;
}

fn connect(url: &str) -> Result<Pool> {
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(url.parse()?, NoTls, recycling);
    Ok(Pool::builder(manager).max_size(8).runtime(Runtime::Tokio1).build()?)
}

/// What every request needs.
#[derive(Clone)]
struct Service {
    pool: Pool,
    build: &'static Build,
    schema: Arc<Schema>,
    draining: Arc<AtomicBool>,
}

/// A user. The version is the client's: it counts its writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub version: i64,
    pub name: String,
}

/// The schema may have moved on without an instance that the database has not heard of: it neither reads nor writes.
async fn only_while_current(State(service): State<Service>, request: Request, next: Next) -> Response {
    if service.schema.is_current() {
        next.run(request).await
    } else {
        StatusCode::SERVICE_UNAVAILABLE.into_response()
    }
}

async fn read(State(service): State<Service>, Path(id): Path<i64>) -> Result<Json<User>, Failure> {
    let client = service.pool.get().await?;
    let read = client.prepare_cached(service.build.read).await?;
    let row = client.query_opt(&read, &[&id]).await?.ok_or(Failure::NotFound)?;
    Ok(Json(User { version: row.try_get(0)?, name: row.try_get(1)? }))
}

async fn write(
    State(service): State<Service>,
    Path(id): Path<i64>,
    Json(user): Json<User>,
) -> Result<StatusCode, Failure> {
    let client = service.pool.get().await?;
    let write = client.prepare_cached(service.build.write).await?;
    match client.execute(&write, &[&id, &user.version, &user.name]).await? {
        0 => Err(Failure::Outdated),
        _ => Ok(StatusCode::NO_CONTENT),
    }
}

/// Whether the balancer may send requests here.
async fn ready(State(service): State<Service>) -> StatusCode {
    if service.schema.is_current() && !service.draining.load(Ordering::Relaxed) {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// For people and dashboards: what this instance knows of itself.
async fn health(State(service): State<Service>) -> Json<Health> {
    Json(service.schema.health())
}

/// Why a request was not done.
enum Failure {
    NotFound,
    /// A newer write has been there.
    Outdated,
    Database(String),
}

impl From<PoolError> for Failure {
    fn from(error: PoolError) -> Self {
        Self::Database(error.to_string())
    }
}

impl From<tokio_postgres::Error> for Failure {
    fn from(error: tokio_postgres::Error) -> Self {
        let text = error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string);
        Self::Database(text)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND.into_response(),
            Self::Outdated => StatusCode::CONFLICT.into_response(),
            Self::Database(error) => (StatusCode::INTERNAL_SERVER_ERROR, error).into_response(),
        }
    }
}
