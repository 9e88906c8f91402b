//! What `RenameColumn` and `ChangeType` share: the two sequences of phases, and how they are written down.

use crate::change::Touches;
use crate::ident::Ident;
use crate::phases::replace::{
    AddTarget, Backfill, ByApplication, DropSource, InstallSync, KeptInSync, RemoveSync, Replace,
    StopOldWrites, SwitchOver, SwitchReads, WriteBoth,
};

/// The playbook's six phases.
pub(super) type ByApplicationPhases = (
    AddTarget<ByApplication>,
    WriteBoth,
    Backfill<ByApplication>,
    SwitchReads,
    StopOldWrites,
    DropSource<ByApplication>,
);

/// The same with triggers, in one deploy.
pub(super) type KeptInSyncPhases = (
    AddTarget<KeptInSync>,
    InstallSync,
    Backfill<KeptInSync>,
    SwitchOver,
    RemoveSync,
    DropSource<KeptInSync>,
);

pub(super) const fn by_application(replace: Replace) -> ByApplicationPhases {
    (
        AddTarget::new(replace),
        WriteBoth::new(),
        Backfill::new(replace),
        SwitchReads::new(),
        StopOldWrites(replace),
        DropSource::new(replace),
    )
}

pub(super) const fn kept_in_sync(replace: Replace) -> KeptInSyncPhases {
    (
        AddTarget::new(replace),
        InstallSync(replace),
        Backfill::new(replace),
        SwitchOver(replace),
        RemoveSync(replace),
        DropSource::new(replace),
    )
}

/// The normalised definition. The soak time is left out: it changes nothing in the database.
pub(super) fn definition(kind: &str, replace: &Replace) -> String {
    let Replace { table, source, target, retype, synced, without, soak: _ } = replace;
    let mut text = format!("{kind} {table:?}\n from {source:?}\n to {target:?}");
    if let Some(retype) = retype {
        text.push_str(&format!(
            "\n type {}\n up {}\n down {}",
            retype.data_type,
            retype.up.as_str(),
            retype.down.as_str()
        ));
    }
    for name in *without {
        text.push_str(&format!("\n without {}", crate::ident::quote(name)));
    }
    text.push_str(if *synced { "\n kept in sync" } else { "\n written by the application" });
    text
}

/// Both columns, and those that the conversions read: one of them must not go while triggers still read it.
pub(super) fn touches(replace: &Replace) -> Touches {
    let mut columns = vec![replace.source, replace.target];
    if let Some(retype) = &replace.retype {
        let read = retype.up.columns().into_iter().chain(retype.down.columns());
        columns.extend(read.map(Ident::new));
    }
    Touches::nothing().columns(replace.table, &columns)
}
