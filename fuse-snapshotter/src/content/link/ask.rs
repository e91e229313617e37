//! One request for a range, to one source after the other.

use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use registry::{ByteStream, Result};

use super::links::Link;
use super::sources::Source;

/// How the last of the sources is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// What it refuses is waited for.
    Wait,
    /// Once: there is another way to the same content.
    Once,
}

impl Link {
    /// Notes bytes that a source has sent.
    pub(super) fn note_bytes(&self, bytes: usize, from: &Source) {
        if !from.is_local {
            self.estimate.note_bytes(bytes);
        }
    }

    /// Asks one source after the other for a range, in one request. The error is the last one's.
    pub(crate) async fn ask(
        &self,
        range: Range<u64>,
        sources: &[Arc<Source>],
        patience: Patience,
    ) -> Result<(ByteStream, Arc<Source>)> {
        let mut rest = sources.iter();
        loop {
            let Some(source) = rest.next() else { return Err(no_source()) };
            let asked = Instant::now();
            source.note_request();
            let is_last = rest.len() == 0;
            let answer = if is_last && patience == Patience::Wait {
                source.reader.read_range(range.clone()).await
            } else {
                source.reader.attempt(range.clone(), 0).await
            };
            match answer {
                Ok(body) => {
                    if !source.is_local {
                        self.estimate.note_answer(asked.elapsed());
                    }
                    return Ok((body, Arc::clone(source)));
                }
                Err(error) if is_last => return Err(error),
                Err(error) => tracing::debug!(%error, "a source does not answer; asking the next one"),
            }
        }
    }
}

fn no_source() -> registry::Error {
    let context =
        registry::Context { operation: "read".into(), host: String::new(), repository: String::new() };
    registry::Error::Protocol { context, reason: "there is no source to ask".to_owned() }
}
