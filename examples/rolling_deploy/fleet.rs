//! The instances that run, and rolling deploys of them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use crate::Result;
use crate::balancer::Balancer;
use crate::instance::{Batch, Instance, Started};

/// Instances that serve, but for the moment in which one is replaced.
pub const INSTANCES: usize = 3;

pub struct Fleet {
    balancer: Arc<Balancer>,
    database: String,
    instances: Vec<Instance>,
    started: u32,
    batches: UnboundedReceiver<Batch>,
    tell: UnboundedSender<Batch>,
    /// For the last line.
    pub deploys: u32,
    pub refused: u32,
}

impl Fleet {
    pub fn new(balancer: &Arc<Balancer>, database: String) -> Self {
        let (tell, batches) = unbounded_channel();
        Self {
            balancer: Arc::clone(balancer),
            database,
            instances: Vec::new(),
            started: 0,
            batches,
            tell,
            deploys: 0,
            refused: 0,
        }
    }

    /// Rolls the whole fleet to a release.
    pub async fn deploy(&mut self, release: usize) -> Result<()> {
        self.begin_deploy(release).await?;
        self.finish_deploy(release).await
    }

    /// The first instance of a rolling deploy.
    pub async fn begin_deploy(&mut self, release: usize) -> Result<()> {
        println!("deploy of release {release}");
        self.deploys += 1;
        self.replace(release).await
    }

    /// The others.
    pub async fn finish_deploy(&mut self, release: usize) -> Result<()> {
        while self.instances.len() < INSTANCES || self.instances.iter().any(|old| old.release != release) {
            self.replace(release).await?;
        }
        Ok(())
    }

    /// Starts an instance and, once it serves, stops one of another release, unless one is missing anyway.
    async fn replace(&mut self, release: usize) -> Result<()> {
        let full = self.instances.len() >= INSTANCES;
        let new = match self.start(release).await? {
            Started::Serving(instance) => *instance,
            Started::Refused(why) => return Err(format!("release {release} was refused: {why}").into()),
        };
        self.balancer.add(new.address).await?;
        let old = self.instances.iter().position(|old| full && old.release != release);
        match old.map(|at| self.instances.remove(at)) {
            Some(old) => {
                println!("  {new} serves; {old} leaves");
                let address = old.address;
                self.instances.push(new);
                old.stop().await?;
                self.balancer.remove(address);
            }
            None => {
                println!("  {new} serves");
                self.instances.push(new);
            }
        }
        Ok(())
    }

    /// Tries a deploy that must not get anywhere.
    pub async fn deploy_in_vain(&mut self, release: usize) -> Result<()> {
        println!("deploy of release {release}");
        match self.start(release).await? {
            Started::Refused(why) => println!("  refused: {why}"),
            Started::Serving(_) => return Err(format!("release {release} was let in").into()),
        }
        self.refused += 1;
        Ok(())
    }

    /// Kills an instance of a release with `kill -9`. Nobody is told: the balancer finds out by a request that breaks, or
    /// by its next probe.
    pub async fn kill_one_of(&mut self, release: usize) -> Result<()> {
        let found = self.instances.iter().position(|instance| instance.release == release);
        let victim = found.ok_or_else(|| format!("no instance of release {release} is left"))?;
        self.kill(victim).await
    }

    /// Kills the instance that drives the backfill once it has come to so many rows, and waits until another one goes
    /// on.
    pub async fn kill_driver_at(&mut self, rows: u64) -> Result<()> {
        let batch = self.batch(|batch| batch.done >= rows).await?;
        let driver = self.instances.iter().position(|instance| instance.number == batch.instance);
        println!("backfill: instance {} has come to {} rows", batch.instance, batch.done);
        self.kill(driver.ok_or("the driver is gone already")?).await?;
        let next = self.batch(|next| next.instance != batch.instance).await?;
        println!(
            "  instance {} goes on with the pages that were under way, at {} rows",
            next.instance, next.done
        );
        if next.done < rows / 2 {
            return Err("the backfill began anew".into());
        }
        Ok(())
    }

    async fn batch(&mut self, wanted: impl Fn(&Batch) -> bool) -> Result<Batch> {
        let found = async {
            while let Some(batch) = self.batches.recv().await {
                if wanted(&batch) {
                    return Ok(batch);
                }
            }
            Err("nobody is left to drive".into())
        };
        timeout(Duration::from_secs(60), found).await.map_err(|_| "the backfill does not go on")?
    }

    async fn kill(&mut self, at: usize) -> Result<()> {
        let victim = self.instances.remove(at);
        println!("  kill -9 of {victim}");
        victim.kill().await
    }

    async fn start(&mut self, release: usize) -> Result<Started> {
        self.started += 1;
        Instance::start(self.started, release, &self.database, self.tell.clone()).await
    }

    /// Ends all instances.
    pub async fn stop(&mut self) -> Result<()> {
        for instance in self.instances.drain(..) {
            instance.stop().await?;
        }
        Ok(())
    }
}
