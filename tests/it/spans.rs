//! What a run tells `tracing`: a span per run, migration, phase and attempt.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use phasewise::testing::Server;
use phasewise::{AddColumn, BackfillPolicy, Migration, Migrations, Migrator, State, migrations};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber, instrument::WithSubscriber};

static MIGRATIONS: Migrations = migrations![Migration::new(
    "nick",
    AddColumn::new("users", "nick", "text").volatile_default("gen_random_uuid()::text")
)];

/// Remembers the names of the crate's spans, with their `name` fields.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeSet<String>>>);

struct Named(Option<String>);

impl Visit for Named {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "name" {
            self.0 = Some(value.to_owned());
        }
    }
    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

impl Subscriber for Seen {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "phasewise"
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut named = Named(None);
        span.record(&mut named);
        let name = span.metadata().name();
        let seen = named.0.map_or_else(|| name.to_owned(), |of| format!("{name} {of}"));
        self.0.lock().unwrap().insert(seen);
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test]
async fn a_run_has_a_span_for_each_of_its_parts() {
    let database = Server::shared().await.unwrap().database().await.unwrap();
    let client = database.connect().await.unwrap();
    client.batch_execute("CREATE TABLE users (id int PRIMARY KEY)").await.unwrap();
    client.batch_execute("INSERT INTO users SELECT generate_series(1, 10)").await.unwrap();
    let migrator = Migrator::new(database.pool(4).unwrap(), &MIGRATIONS)
        .backfill(BackfillPolicy::new().pause(Duration::ZERO));
    let pending: Vec<String> =
        migrator.pending().await.unwrap().into_iter().map(|status| status.name).collect();
    assert_eq!(pending, ["nick"]);
    assert!(migrator.applied().await.unwrap().is_empty());

    let seen = Seen::default();
    migrator.run().with_subscriber(seen.clone()).await.unwrap();
    let seen = seen.0.lock().unwrap().clone();
    for span in
        ["run", "migration nick", "phase AddNullable", "phase SetDefault", "phase Backfill", "attempt"]
    {
        assert!(seen.contains(span), "no span {span} among {seen:?}");
    }

    assert!(migrator.pending().await.unwrap().is_empty());
    let applied = migrator.applied().await.unwrap();
    assert_eq!(applied.len(), 1);
    assert_eq!(applied[0].state, State::Applied);
}
