//! One layer against its zTOC.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use registry::{Descriptor, Digest};
use tokio::sync::Semaphore;
use ztoc::Ztoc;

use super::compare::differences;
use super::report::{LayerReport, Trouble, Verdict};
use super::spans;
use crate::build::layer::{self, BuildLayerError, Format, Outcome};
use crate::build::{BuildOptions, LayerEvent, MemoryBudget, Progress};
use crate::manifest::{IndexManifest, MAX_ZTOC_SIZE, ZtocRef};
use crate::source::{Check, ImageSource};
use crate::store::Store;

/// What the checks of all layers share.
pub(super) struct Context {
    pub(super) source: Arc<dyn ImageSource>,
    pub(super) artifacts: Arc<dyn ImageSource>,
    pub(super) store: Store,
    pub(super) memory: Arc<MemoryBudget>,
    pub(super) permits: Semaphore,
    pub(super) progress: Arc<dyn Progress>,
}

/// What was read of a zTOC before it is compared.
struct Claims {
    span_size: u64,
    tool: String,
    spans: usize,
}

impl Context {
    /// Checks a layer. Also gives the number of its spans, if it has a zTOC that can be read.
    pub(super) async fn check(
        &self,
        layer: &Descriptor,
        index: &IndexManifest,
    ) -> (LayerReport, Option<usize>) {
        let report = |ztoc: Option<&ZtocRef<'_>>, verdict| LayerReport {
            layer: layer.clone(),
            ztoc: ztoc.map(|ztoc| ztoc.descriptor.digest.clone()),
            verdict,
        };
        let Some(ztoc) = index.ztoc_of(&layer.digest) else { return (report(None, Verdict::NoZtoc), None) };
        let troubled = |trouble| report(Some(&ztoc), Verdict::from(trouble));
        let Ok(_permit) = self.permits.acquire().await else {
            return (troubled(Trouble::Unread("the check was given up".into())), None);
        };
        let claims = match self.claims(&ztoc).await {
            Ok(claims) => claims,
            Err(trouble) => return (troubled(trouble), None),
        };
        let mut problems = annotations(layer, &ztoc, &claims);
        let verdict = match self.rebuild(layer, &ztoc, &claims).await {
            Ok((verdict, has_xattrs)) => {
                if ztoc.disable_xattrs && has_xattrs {
                    problems
                        .push("the index says that it has no extended attributes, and it has some".into());
                }
                verdict
            }
            Err(trouble) => Verdict::from(trouble),
        };
        let verdict = match verdict {
            Verdict::Wrong(more) => {
                problems.extend(more);
                Verdict::Wrong(problems)
            }
            _ if !problems.is_empty() => Verdict::Wrong(problems),
            right => right,
        };
        self.progress.layer(
            layer,
            match &verdict {
                Verdict::Wrong(problems) => LayerEvent::Failed(problems.first().map_or("", String::as_str)),
                Verdict::Unchecked(reason) => LayerEvent::Failed(reason),
                _ => LayerEvent::Built(&ztoc.descriptor.digest),
            },
        );
        (report(Some(&ztoc), verdict), Some(claims.spans))
    }

    /// Reads a zTOC or prefetch artifact, from the store if that has it. Its digest and size are right.
    pub(super) async fn artifact(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes, Trouble> {
        if descriptor.size > limit {
            let size = descriptor.size;
            return Err(Trouble::Wrong(format!("it has {size} bytes, more than the {limit} allowed")));
        }
        let bytes = match self.store.get(&descriptor.digest, limit).await {
            Ok(bytes) => bytes,
            Err(_) => {
                let stream = self.artifacts.open_blob(descriptor, Check::BySource).await;
                let mut stream = stream.map_err(|error| Trouble::of_artifact(&error))?;
                let mut bytes = BytesMut::new();
                let broke = |error: registry::Error| Trouble::of_artifact(&error.into());
                while let Some(piece) = stream.try_next().await.map_err(broke)? {
                    if bytes.len() as u64 + piece.len() as u64 > descriptor.size {
                        break;
                    }
                    bytes.extend_from_slice(&piece);
                }
                bytes.freeze()
            }
        };
        if bytes.len() as u64 != descriptor.size || Digest::of(&bytes) != descriptor.digest {
            return Err(
                "its content is not what the index says: other bytes, or more or fewer of them".into()
            );
        }
        Ok(bytes)
    }

    async fn ztoc(&self, descriptor: &Descriptor) -> Result<Ztoc, Trouble> {
        let bytes = self.artifact(descriptor, MAX_ZTOC_SIZE).await?;
        let parsed = tokio::task::spawn_blocking(move || Ztoc::parse(bytes)).await;
        let parsed = parsed.map_err(|error| Trouble::Unread(error.to_string()))?;
        parsed.map_err(|error| Trouble::Wrong(error.to_string()))
    }

    /// What a zTOC says about itself. It is not kept: the layer is built within the budget, and holding one while waiting
    /// for the other would not be.
    async fn claims(&self, ztoc: &ZtocRef<'_>) -> Result<Claims, Trouble> {
        let _memory = self.memory.reserve(ztoc.descriptor.size).await;
        let ztoc = self.ztoc(ztoc.descriptor).await?;
        let tool = String::from_utf8(ztoc.build_tool_identifier().to_vec());
        Ok(Claims {
            span_size: ztoc.spans().span_size(),
            tool: tool.map_err(|_| "the name of its tool is not text")?,
            spans: ztoc.spans().len(),
        })
    }

    /// Builds the zTOC again and compares. Also tells whether the layer has extended attributes.
    async fn rebuild(
        &self,
        layer: &Descriptor,
        ztoc: &ZtocRef<'_>,
        claims: &Claims,
    ) -> Result<(Verdict, bool), Trouble> {
        let format = Format::of(&layer.media_type).ok_or("the layer has a media type that no layer has")?;
        let options = BuildOptions {
            span_size: claims.span_size,
            tool: claims.tool.clone(),
            ..BuildOptions::default()
        };
        let mut estimate = layer::estimate(layer, format, &options);
        loop {
            let memory = self.memory.reserve(estimate).await;
            self.progress.layer(layer, LayerEvent::Started);
            let advanced = |bytes| self.progress.layer(layer, LayerEvent::Advanced(bytes));
            let outcome = layer::build(&*self.source, layer, format, &options, memory, advanced).await;
            let (built, mut memory) = match outcome.map_err(Trouble::from)? {
                Outcome::Built(built, _, memory) => (built, memory),
                Outcome::Refused(error) => {
                    return Err(Trouble::Wrong(format!("the layer itself cannot be indexed: {error}")));
                }
                Outcome::Crowded(needed) => {
                    self.progress.layer(layer, LayerEvent::Postponed);
                    estimate = needed.saturating_mul(2);
                    continue;
                }
            };
            if Digest::from_sha256(&built.digest.0) == ztoc.descriptor.digest {
                return Ok((Verdict::Identical, built.has_xattrs));
            }
            // Both, and the small tables that are made of them.
            let both = (built.bytes.len() as u64 + ztoc.descriptor.size).saturating_mul(5) / 4;
            if let Err(crowded) = memory.grow(both).await {
                estimate = crowded.needed.max(estimate).saturating_mul(2);
                continue;
            }
            let claimed = Arc::new(self.ztoc(ztoc.descriptor).await?);
            let actual =
                Arc::new(Ztoc::parse(built.bytes).map_err(|error| Trouble::Wrong(error.to_string()))?);
            let problems = differences(&claimed, &actual);
            if !problems.is_empty() {
                return Ok((Verdict::Wrong(problems), built.has_xattrs));
            }
            let problems = spans::check(&*self.source, layer, claimed, actual).await?;
            let verdict = if problems.is_empty() { Verdict::Equivalent } else { Verdict::Wrong(problems) };
            return Ok((verdict, built.has_xattrs));
        }
    }
}

impl From<BuildLayerError> for Trouble {
    fn from(error: BuildLayerError) -> Self {
        match error {
            BuildLayerError::Source(error) => Self::of_layer(&error),
            BuildLayerError::Internal(reason) => Self::Unread(reason),
        }
    }
}

impl From<Trouble> for Verdict {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Wrong(problem) => Self::Wrong(vec![problem]),
            Trouble::Unread(reason) => Self::Unchecked(reason),
        }
    }
}

/// What is wrong with the zTOC's annotations in the index.
fn annotations(layer: &Descriptor, ztoc: &ZtocRef<'_>, claims: &Claims) -> Vec<String> {
    let mut problems = Vec::new();
    if ztoc.layer_media_type != Some(&layer.media_type) {
        let shown = ztoc.layer_media_type.map_or_else(|| "none".to_owned(), crate::text::excerpt);
        problems.push(format!("the index gives another media type of the layer: {shown}"));
    }
    if ztoc.span_size != Some(claims.span_size) {
        let shown = ztoc.span_size.map_or_else(|| "none".to_owned(), |size| size.to_string());
        problems.push(format!("the index gives span size {shown}, the zTOC {}", claims.span_size));
    }
    problems
}
