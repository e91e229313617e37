//! Records about artifacts, in `artifacts.redb`.
//!
//! One table, `artifacts_v1`. The key is the artifact's digest, a NUL, and what tells several records of one artifact
//! apart: the image's name for an index (two tags may have one index), the layer's digest for a zTOC (layers that differ
//! only in their gzip header have one zTOC) or a prefetch artifact (many layers have span 0 in theirs). The value is the record as JSON.
//!
//! redb locks its file for as long as it is open, so it is opened for each transaction and closed right after it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use redb::{DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use registry::Digest;
use serde::{Deserialize, Serialize};

use super::create::create_database;
use super::error::StoreError;

const ARTIFACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("artifacts_v1");

/// How long to wait for another process that has the database open.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(10);

/// What an artifact is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArtifactKind {
    /// An index manifest.
    #[serde(rename = "soci_index")]
    Index,
    /// The zTOC of a layer.
    #[serde(rename = "soci_layer")]
    Layer,
    /// A prefetch artifact of a layer.
    #[serde(rename = "soci_prefetch")]
    Prefetch,
}

/// What is known about one artifact. Field names are those of the reference's database where it has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Digest of the artifact.
    pub digest: Digest,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: ArtifactKind,
    /// Its size in bytes.
    pub size: u64,
    /// Span size in bytes.
    pub span_size: u64,
    /// What it describes: the image manifest of an index, the layer of a zTOC or a prefetch artifact.
    pub oci_digest: Digest,
    /// Digest that the image's name stood for, maybe an image index. Indexes only.
    #[serde(default)]
    pub image_digest: Option<Digest>,
    /// The image's name, as [`crate::source::ImageSource::name`] gives it. Indexes only.
    #[serde(default)]
    pub image_ref: String,
    /// Platform. Indexes only.
    #[serde(default)]
    pub platform: String,
    /// Media type of the artifact.
    pub media_type: String,
    /// `config.mediaType` of an index.
    #[serde(default)]
    pub artifact_type: String,
    /// Build tool identifier.
    pub tool: String,
    /// Seconds since 1970, UTC, when the record was made.
    pub created_at: i64,
    /// Nanoseconds within that second: indexes made in the same second have an order too.
    #[serde(default)]
    pub created_at_ns: u32,
    /// Whether it was found in a content store and not built here. Nobody knows where that came from, so that it is never
    /// used again for another index.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub found: bool,
}

impl Record {
    pub(super) fn key(&self) -> String {
        match self.kind {
            ArtifactKind::Index => format!("{}\0{}", self.digest, self.image_ref),
            ArtifactKind::Layer | ArtifactKind::Prefetch => {
                format!("{}\0{}", self.digest, self.oci_digest)
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Database {
    path: PathBuf,
}

fn open_file(file: File) -> Result<redb::Database, DatabaseError> {
    redb::Builder::new().set_cache_size(4 << 20).create_file(file)
}

impl Database {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn put(&self, records: &[Record]) -> Result<(), StoreError> {
        let mut rows = Vec::new();
        for record in records {
            rows.push((record.key(), serde_json::to_vec(record).map_err(|error| self.failed(error))?));
        }
        self.write(|table| {
            for (key, value) in &rows {
                table.insert(key.as_str(), value.as_slice())?;
            }
            Ok(())
        })
    }

    pub(super) fn remove(&self, records: &[Record]) -> Result<(), StoreError> {
        self.write(|table| {
            for record in records {
                table.remove(record.key().as_str())?;
            }
            Ok(())
        })
    }

    pub(super) fn all(&self) -> Result<Vec<Record>, StoreError> {
        if !self.path.exists() {
            return Ok(Vec::new());
        }
        let read = || -> Result<Vec<Vec<u8>>, redb::Error> {
            let database = self.open()?;
            let transaction = database.begin_read()?;
            let table = match transaction.open_table(ARTIFACTS) {
                Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                other => other?,
            };
            let mut rows = Vec::new();
            for row in table.iter()? {
                rows.push(row?.1.value().to_vec());
            }
            Ok(rows)
        };
        let rows = read().map_err(|error| self.error(error))?;
        // Parsed after the database is closed. A record of a newer version is no reason to fail.
        Ok(rows.iter().filter_map(|row| serde_json::from_slice(row).ok()).collect())
    }

    fn write(
        &self,
        change: impl FnOnce(&mut redb::Table<'_, &str, &[u8]>) -> Result<(), redb::StorageError>,
    ) -> Result<(), StoreError> {
        let run = || -> Result<(), redb::Error> {
            let database = self.open()?;
            let transaction = database.begin_write()?;
            change(&mut transaction.open_table(ARTIFACTS)?)?;
            transaction.commit()?;
            Ok(())
        };
        run().map_err(|error| self.error(error))
    }

    /// Opens the database, waiting a while for another process to close it.
    fn open(&self) -> Result<redb::Database, redb::Error> {
        create_database(&self.path, open_file)?;
        let start = Instant::now();
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&self.path)
                .map_err(redb::Error::Io)?;
            match open_file(file) {
                Err(DatabaseError::DatabaseAlreadyOpen) if start.elapsed() < PATIENCE => {
                    std::thread::sleep(PAUSE)
                }
                other => return Ok(other?),
            }
        }
    }

    fn error(&self, error: redb::Error) -> StoreError {
        match error {
            redb::Error::DatabaseAlreadyOpen => StoreError::Busy { path: self.path.clone() },
            redb::Error::Io(source) => StoreError::Io { path: self.path.clone(), source },
            other => self.failed(other),
        }
    }

    fn failed(&self, error: impl std::fmt::Display) -> StoreError {
        StoreError::Database { path: self.path.clone(), reason: error.to_string() }
    }
}
