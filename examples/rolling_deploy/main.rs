//! Rolling deploys of a small axum service, instance by instance, through all phases of a rename, behind a load
//! balancer and clients that never stop.
//!
//! ```sh
//! cargo run --release --example rolling_deploy
//! ```
//!
//! It starts a throwaway Postgres by itself, or uses the one that `DATABASE_URL` leads to, in a database of its own
//! that it drops at the end. Each instance is this program once more, as a process of its own: `serve <release>`.
//!
//! Begin with `service.rs` and `builds.rs`, which are what an application has; `story.rs` is what happens to it. Signals
//! are those of Unix.

#![allow(unreachable_pub, reason = "the modules of an example are seen by nobody else")]

mod balancer;
mod builds;
mod clients;
mod database;
mod fleet;
mod instance;
mod service;
mod story;

use std::io::Read as _;
use std::process::ExitCode;
use std::sync::Arc;

use deadpool_postgres::Pool;
use phasewise::Kind;
use phasewise::testing::{Database, Server};
use tokio::signal::unix::{SignalKind, signal};

use balancer::Balancer;
use builds::{Build, RELEASES};
use clients::{Clients, Score};
use fleet::Fleet;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// The exit code of an instance that may not serve beside the schema as it stands.
const REFUSED: u8 = 3;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => rolling_deploy().await,
        ["serve", release] => match release.parse().ok().and_then(|release: usize| RELEASES.get(release)) {
            Some(build) => serve(build).await,
            None => usage(),
        },
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: rolling_deploy [serve <0 to 3>]");
    ExitCode::from(2)
}

/// One instance.
async fn serve(build: &'static Build) -> ExitCode {
    // It ends with the program that started it, even if that one is killed.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(1);
    });
    let Err(error) = service::serve(build).await else { return ExitCode::SUCCESS };
    eprintln!("{error}");
    match error.downcast_ref::<phasewise::Error>() {
        Some(error) if error.kind() == Kind::OutsideWindow => ExitCode::from(REFUSED),
        _ => ExitCode::FAILURE,
    }
}

/// All of it. The last line is for whoever looks at nothing else.
async fn rolling_deploy() -> ExitCode {
    let score = Arc::new(Score::default());
    match with_database(&score).await {
        Ok(Tally { deploys, refused }) => {
            println!("\nclients: {score}; {deploys} deploys, {refused} refused");
            if score.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error}");
            eprintln!("clients, until then: {score}");
            ExitCode::FAILURE
        }
    }
}

/// What the fleet went through.
struct Tally {
    deploys: u32,
    refused: u32,
}

/// Finds a server, plays, and drops the database again, after an error or a signal too.
async fn with_database(score: &Arc<Score>) -> Result<Tally> {
    let server = Server::find().await?;
    let database = server.database().await?;
    println!("{}, database {}", server.origin(), database.name());
    let played = tokio::select! {
        played = play(&database, score) => played,
        stopped = stopped() => Err(stopped.err().unwrap_or_else(|| "interrupted".into())),
    };
    let dropped = database.drop().await;
    server.stop().await;
    let tally = played?;
    dropped?;
    Ok(tally)
}

async fn play(database: &Database, score: &Arc<Score>) -> Result<Tally> {
    let pool: Pool = database.pool(4)?;
    database::load(&pool).await?;
    let balancer = Arc::new(Balancer::new());
    let mut fleet = Fleet::new(&balancer, database.url());
    fleet.deploy(0).await?;
    let clients = Clients::start(&balancer, score);
    story::play(&mut fleet, &pool).await?;
    let written = clients.stop().await?;
    fleet.stop().await?;
    database::compare(&pool, written, score).await?;
    println!("requests that were sent to a second instance: {}", balancer.resent());
    Ok(Tally { deploys: fleet.deploys, refused: fleet.refused })
}

/// Somebody wants it to end.
async fn stopped() -> Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
    Ok(())
}
