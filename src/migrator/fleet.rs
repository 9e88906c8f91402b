//! Who takes part in a migration, and which release each of them speaks: judged from the ledger alone.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::ledger::{Book, Instance, Listing, Record};
use super::reach::Reach;
use crate::migration::Entry;

/// An instance, or a service without one, that a gate waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct InTheWay {
    /// The service.
    pub service: String,
    /// The instance's id; `None` where the service has no live instance of the release that is waited for.
    pub instance: Option<String>,
    /// The release that it speaks.
    pub release: Option<u16>,
    /// Since when nothing was heard of it, for one that has expired and is not counted out yet.
    pub silent: Option<DateTime<Utc>>,
}

impl fmt::Display for InTheWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, instance, release, silent } = self;
        match instance {
            None => write!(f, "no live instance of {service} speaks it"),
            Some(id) if id.is_empty() => {
                write!(f, "this build of {service} speaks {}", release.unwrap_or(0))
            }
            Some(id) => {
                write!(f, "instance {id} of {service} speaks {}", release.unwrap_or(0))?;
                match silent {
                    Some(at) => {
                        let at = at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
                        write!(f, " and was last heard of at {at}")
                    }
                    None => Ok(()),
                }
            }
        }
    }
}

/// Several of them, for an error or a status: all would be too much of a large fleet.
pub(super) fn list(found: &[InTheWay]) -> String {
    let mut text = found.iter().take(3).map(ToString::to_string).collect::<Vec<_>>().join("; ");
    if found.len() > 3 {
        text.push_str(&format!("; and {} more", found.len() - 3));
    }
    text
}

/// A migration, as far as it matters who takes part in it.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    name: String,
    /// Those that it names; none: they are found by what they list.
    services: Vec<String>,
    reach: Reach,
    /// Its newest release.
    last: u16,
}

impl Subject {
    pub(super) fn of(entry: &Entry, schema: &str) -> Self {
        Self {
            name: entry.name().to_owned(),
            services: entry.services().iter().map(|&service| service.to_owned()).collect(),
            reach: Reach::of(&entry.touches(), schema),
            last: entry.phases().last().map_or(0, |info| info.window.hi),
        }
    }

    /// Of one that this build does not know.
    pub(super) fn recorded(record: &Record) -> Self {
        Self {
            name: record.name.clone(),
            services: record.services.clone(),
            reach: record.reach.clone(),
            last: record.window_at(record.phases.len()).hi,
        }
    }
}

/// The instance that this process is about to register, with what it lists.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub(super) instance: Instance,
    pub(super) lists: Vec<(String, Reach)>,
    /// Where its unqualified tables are.
    pub(super) schema: String,
    /// Whether it has been let in before.
    pub(super) served: bool,
}

/// The fleet as the ledger shows it, and perhaps one more.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fleet<'a> {
    pub(super) book: &'a Book,
    pub(super) candidate: Option<&'a Candidate>,
    pub(super) grace: Duration,
}

impl<'a> Fleet<'a> {
    /// Whether a service takes part.
    pub(super) fn takes_part(&self, subject: &Subject, service: &str) -> bool {
        if !subject.services.is_empty() {
            return subject.services.iter().any(|named| named == service);
        }
        let concerns = |name: &str, reach: &Reach| {
            name == subject.name || subject.reach.everything || reach.meets(&subject.reach)
        };
        let own = self.candidate.filter(|candidate| candidate.instance.service == service);
        own.into_iter().flat_map(|candidate| &candidate.lists).any(|(name, reach)| concerns(name, reach))
            || self
                .listings()
                .any(|listing| listing.service == service && concerns(&listing.migration, &listing.reach))
    }

    fn listings(&self) -> impl Iterator<Item = &'a Listing> {
        self.book.listings.iter()
    }

    /// The services that take part, whether or not an instance of them is there.
    fn services(&self, subject: &Subject) -> BTreeSet<String> {
        if !subject.services.is_empty() {
            return subject.services.iter().cloned().collect();
        }
        let candidate = self.candidate.map(|candidate| candidate.instance.service.as_str());
        let all: BTreeSet<&str> =
            self.listings().map(|listing| listing.service.as_str()).chain(candidate).collect();
        all.into_iter().filter(|service| self.takes_part(subject, service)).map(str::to_owned).collect()
    }

    /// The release that an instance speaks; `None` if it does not take part. One that does not know the migration is
    /// older than it.
    pub(super) fn release(&self, subject: &Subject, instance: &Instance) -> Option<u16> {
        let speaks = instance.releases.get(&subject.name).copied().unwrap_or(0);
        self.takes_part(subject, &instance.service).then(|| speaks.min(subject.last))
    }

    /// All that must be reckoned with, and take part.
    pub(super) fn members(&self, subject: &Subject) -> Vec<(&'a Instance, u16)> {
        let candidate = self.candidate.map(|candidate| &candidate.instance);
        let registered = self.book.instances.iter().filter(|instance| {
            instance.counts(self.grace) && candidate.is_none_or(|candidate| candidate.id != instance.id)
        });
        registered
            .chain(candidate)
            .filter_map(|instance| self.release(subject, instance).map(|release| (instance, release)))
            .collect()
    }

    /// Those that speak less than `release`.
    pub(super) fn older(&self, subject: &Subject, release: u16) -> Vec<InTheWay> {
        let older = self.members(subject).into_iter().filter(|(_, speaks)| *speaks < release);
        older.map(|(instance, speaks)| self.in_the_way(instance, speaks)).collect()
    }

    pub(super) fn in_the_way(&self, instance: &Instance, release: u16) -> InTheWay {
        let own = self.candidate.is_some_and(|candidate| candidate.instance.id == instance.id);
        InTheWay {
            service: instance.service.clone(),
            instance: Some(if own { String::new() } else { instance.id.clone() }),
            release: Some(release),
            silent: (!instance.is_live()).then_some(instance.seen),
        }
    }

    /// Since when every service that takes part has a live instance that speaks `release` or more; or the services that
    /// have none.
    pub(super) fn speaks(
        &self,
        subject: &Subject,
        release: u16,
    ) -> std::result::Result<DateTime<Utc>, Vec<InTheWay>> {
        let members = self.members(subject);
        let mut since = DateTime::<Utc>::MIN_UTC;
        let mut missing = Vec::new();
        let services = self.services(subject);
        for service in &services {
            let first = members
                .iter()
                .filter(|(instance, speaks)| {
                    instance.service == *service && *speaks >= release && instance.is_live()
                })
                .map(|(instance, _)| instance.started)
                .min();
            match first {
                Some(started) => since = since.max(started),
                None => missing.push(InTheWay {
                    service: service.clone(),
                    instance: None,
                    release: None,
                    silent: None,
                }),
            }
        }
        // Nobody at all is no evidence.
        if services.is_empty() || !missing.is_empty() { Err(missing) } else { Ok(since) }
    }

    /// The phases that migrations stand in whose successors `instance` is too old for: (migration, phase).
    pub(super) fn too_old_for(
        &self,
        instance: &Instance,
        subject: impl Fn(&Record) -> Subject,
    ) -> Vec<(String, String)> {
        let records = self.book.records.values().filter(|record| record.entered < record.phases.len());
        records
            .filter_map(|record| {
                let here = record.here()?;
                let release = self.release(&subject(record), instance)?;
                let older = release < record.window_at(record.entered + 1).lo;
                older.then(|| (record.name.clone(), here.name.clone()))
            })
            .collect()
    }
}
