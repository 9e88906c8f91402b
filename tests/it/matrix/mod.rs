//! Every change on every kind of table: forward, back from everywhere, forward again; every step twice; its locks; and
//! the end compared with what plain SQL makes of the same table.
//!
//! | change                             | PLAIN | COMPOSITE | KEYLESS | PARTITIONED | WEIRD | TRIGGERED | GENERATED | EMPTY | DRAWN |
//! |------------------------------------|-------|-----------|---------|-------------|-------|-----------|-----------|-------|-------|
//! | `AddColumn`, nullable              | x     | x         | x       | x           | x     | x         | x         | x     | x     |
//! | `AddColumn`, `.default`            | x     | x         | x       | x           | x     | x         | x         | x     | x     |
//! | `AddColumn`, `.volatile_default`   | x     | x         | x       | x           | x     | x         | x         | x     | x     |
//! | `AddColumn`, `.backfill`           | x     | x         | x       | x           | x     | x         | x         | x     | x     |
//! | `AddColumn`, `.computed_from`      | x     | x         | x       | x           | x     | x         | x         | x     | x     |
//! | `RenameColumn`, by the application | x     | x         | x       | x           | x     | x         | x         | x     | r     |
//! | `RenameColumn`, `.kept_in_sync`    | x     | x         | x       | x           | x     | x         | x         | x     | x     |
//! | `ChangeType`, by the application   | x     | x         | x       | x           | x     | x         | x         | x     | r     |
//! | `ChangeType`, `.kept_in_sync`      | x     | x         | x       | x           | x     | x         | x         | x     | x     |
//! | `DropColumn`                       | x     | x         | 1       | x           | x     | x         | x         | x     | x     |
//! | `DropColumn`, `.quarantine`        | x     | x         | 1       | x           | x     | x         | x         | x     | x     |
//! | `DropTable`                        | x     | x         | x       | x           | x     | x         | x         | x     | x     |
//! | `AddIndex`                         | x     | x         | x       | x           | x     | x         | x         | x     | x     |
//! | `CreateTable` that refers to it    | x     | x         | –       | x           | x     | x         | x         | x     | x     |
//! | `RunSql`                           | x     |           | x       | x           |       |           |           |       |       |
//!
//! r: refused, since two columns would draw different values. 1: the last phase is irreversible, all others are rolled
//! back. –: there is nothing to refer to. What `RunSql` does to a kind of table is its user's affair: its cases differ in
//! how the statements are sent. Generated and identity columns themselves are refused by name where they are dropped, and
//! generated ones where they are replaced; the columns here stand beside them. `DropTable` has `part` of PLAIN, since a
//! publication and a foreign key are in the way of `item`; with and without `.quarantine`. TYPES has one case per type, brief where
//! the same change is thorough on another table.

mod setups;

mod others;
mod replace;
