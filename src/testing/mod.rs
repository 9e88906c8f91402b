//! Throwaway Postgres servers and databases.
