//! The instances of the application, and rolling deploys of them.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use phasewise::testing::{Clients, StartError, Workload};

use crate::application::{self, Release};
use crate::model::Model;

/// Instances that serve at any moment, each with a few clients.
pub const INSTANCES: usize = 2;
pub const CLIENTS: usize = 3;

/// As long an old and a new instance serve side by side at every step of a deploy, at least.
const SIDE_BY_SIDE: Duration = Duration::from_millis(500);

/// The application, as it runs.
#[derive(Debug)]
pub struct Fleet {
    workload: Workload,
    model: Arc<Model>,
    instances: Vec<(&'static Release, Clients)>,
}

/// A deploy, for the table at the end.
#[derive(Debug)]
pub struct Deploy {
    pub from: &'static Release,
    pub to: &'static Release,
    pub took: Duration,
}

impl fmt::Display for Deploy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, .. } = self;
        if from.of == to.of {
            write!(f, "release {} → {}", from.number, to.number)
        } else {
            write!(f, "{from} → release {}", to.number)
        }
    }
}

impl Fleet {
    pub async fn start(
        workload: &Workload,
        model: &Arc<Model>,
        release: &'static Release,
    ) -> Result<Self, StartError> {
        let mut fleet = Self { workload: workload.clone(), model: Arc::clone(model), instances: Vec::new() };
        for _ in 0..INSTANCES {
            let instance = fleet.instance(release).await?;
            fleet.instances.push((release, instance));
        }
        tokio::time::sleep(SIDE_BY_SIDE).await;
        Ok(fleet)
    }

    /// Deploys a release, one instance at a time: the new one starts, both serve, the old one is drained.
    pub async fn deploy(&mut self, release: &'static Release) -> Result<Deploy, StartError> {
        let begun = Instant::now();
        let from = self.instances.last().map_or(release, |(release, _)| *release);
        for at in 0..self.instances.len() {
            let new = self.instance(release).await?;
            tokio::time::sleep(SIDE_BY_SIDE).await;
            let (_, old) = std::mem::replace(&mut self.instances[at], (release, new));
            old.stop().await;
            tokio::time::sleep(SIDE_BY_SIDE).await;
        }
        Ok(Deploy { from, to: release, took: begun.elapsed() })
    }

    /// Drains all instances.
    pub async fn stop(self) {
        for (_, instance) in self.instances {
            instance.stop().await;
        }
    }

    async fn instance(&self, release: &'static Release) -> Result<Clients, StartError> {
        let model = Arc::clone(&self.model);
        self.workload
            .start(release.to_string(), CLIENTS, move |session| {
                application::serve(session, release, Arc::clone(&model))
            })
            .await
    }
}
