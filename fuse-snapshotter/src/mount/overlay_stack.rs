//! Putting the layers on top of each other.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, mount};
use tokio::runtime::Handle;

use super::error::{MountImageError, io_error};
use super::layer::Layer;
use super::options::Options;
use super::report::KernelCounts;
use super::workspace::Workspace;
use crate::content::tree::{Below, OverlayNamespace, Tree};
use crate::fronts::forest::AddTreeError;
use crate::fronts::fuse::FuseOptions;
use crate::fronts::mount_point::{detach, is_mounted};
use crate::fronts::{Front, FrontError, FuseStats, Mounted, TreeMount, mount_tree};
use crate::image::WhyNotLazy;
use crate::image::inherit::{inherit, inherit_tree, is_opaque};
use crate::image::stacking::{StackPart, stack_parts};

/// Threads per mount that take requests from the kernel. Reads that miss the cache do not hold one.
const THREADS: usize = 4;

/// Longest text that mount(2) takes as options: a page.
const MAX_MOUNT_DATA: usize = 4095;

/// Why the layers cannot be stacked.
#[derive(Debug)]
pub(super) enum StackError {
    /// A zTOC that makes no sense above the layers below it.
    Tree {
        layer: usize,
        why: WhyNotLazy,
    },
    /// Overlayfs does not take what EROFS mounts.
    Erofs(Box<MountImageError>),
    Mount(Box<MountImageError>),
}

impl<E: Into<MountImageError>> From<E> for StackError {
    fn from(error: E) -> Self {
        Self::Mount(Box::new(error.into()))
    }
}

/// What is mounted for an image.
#[derive(Debug)]
pub(super) struct Stack {
    /// The runs of lazy layers.
    runs: Vec<Mounted>,
    /// The overlay at the target; none if the image is one run, mounted right there.
    top: Option<PathBuf>,
}

/// A layer that a tree shows, and its position in the image.
type TreeLayer<'l> = (usize, &'l Layer);

/// A directory with an unpacked layer, and which of its directories the layer does not mention itself.
type UnpackedDirectory<'l> = (&'l PathBuf, &'l [PathBuf]);

impl Stack {
    pub(super) fn mount(
        layers: &[Layer],
        target: &Path,
        workspace: &Workspace,
        options: &Options,
        front: Front,
        runtime: Handle,
    ) -> Result<Self, StackError> {
        let parts = parts(layers);
        let mut stack = Self { runs: Vec::new(), top: None };
        // Bottom first, as the layers; overlayfs wants the top first.
        let mut lower = Vec::new();
        for (position, part) in parts.iter().enumerate() {
            match part {
                StackPart::Directory((path, implied)) => {
                    inherit(path, implied, &lower).map_err(io_error("describe directories in", path))?;
                    // Overlayfs does not look whether a root is opaque, so what it hides is left out.
                    if is_opaque(path).map_err(io_error("read", path))? {
                        lower.clear();
                    }
                    lower.push((*path).clone());
                }
                StackPart::Tree(layers) => {
                    let first = layers.first().map_or(0, |(first, _)| *first);
                    let below =
                        if position == 0 { Below::Nothing } else { Below::Layers(OverlayNamespace::Trusted) };
                    let ztocs: Vec<_> = layers.iter().filter_map(|(_, layer)| layer.ztoc()).collect();
                    let mut tree = Tree::merge(&ztocs, below).map_err(|error| StackError::Tree {
                        layer: first + error.layer,
                        why: error.into(),
                    })?;
                    inherit_tree(&mut tree, &lower).map_err(io_error("read directories below", target))?;
                    if tree.hides_all_below() {
                        lower.clear();
                    }
                    let lazy: Vec<_> = layers.iter().filter_map(|(_, layer)| layer.lazy()).cloned().collect();
                    let (path, image) = (format!("r{position}"), format!("r{position}.erofs"));
                    let path =
                        if parts.len() == 1 { target.to_owned() } else { workspace.directory(&path)? };
                    let image = workspace.path().join(image);
                    let mount = TreeMount { tree, layers: lazy, path: &path, image: &image };
                    let allow_other = options.allow_other || rustix::process::geteuid().is_root();
                    let fuse = FuseOptions { threads: THREADS, allow_other };
                    let run = mount_tree(mount, front, fuse, &runtime)
                        .map_err(|error| front_error(error, first, &path))?;
                    stack.runs.push(run);
                    lower.push(path);
                }
            }
        }
        let overlaid = match lower.as_slice() {
            [] => {
                return Err(
                    io_error("mount at", target)(std::io::Error::other("the image has no layers")).into()
                );
            }
            [only] if only == target => Ok(()),
            // Over an empty directory, so that overlayfs hides the whiteouts of a layer that nothing lies below.
            [only] => stack.overlay(&[workspace.directory("empty")?, only.clone()], target),
            _ => stack.overlay(&lower, target),
        };
        match overlaid {
            Ok(()) => Ok(stack),
            // The kernel limits how many file systems are stacked, and what the image's file is on counts, too.
            Err(error) if stack.runs.iter().any(|run| run.front() == Front::Erofs) => {
                for position in 0..parts.len() {
                    let _ = std::fs::remove_file(workspace.path().join(format!("r{position}.erofs")));
                }
                Err(StackError::Erofs(Box::new(error)))
            }
            Err(error) => Err(error.into()),
        }
    }

    fn overlay(&mut self, lower: &[PathBuf], target: &Path) -> Result<(), MountImageError> {
        let failed = |source| io_error("mount an overlay at", target)(source);
        if let Some(odd) =
            lower.iter().find(|path| path.to_str().is_none_or(|path| path.contains([':', ',', '\\'])))
        {
            return Err(failed(std::io::Error::other(format!(
                "{} has a character that overlayfs takes for its own; choose another --root",
                odd.display()
            ))));
        }
        let paths: Vec<_> = lower.iter().rev().map(|path| path.to_string_lossy()).collect();
        // With xino, files and directories have one st_dev, so that `du -x` and `find -xdev` see all of them.
        let options = format!("lowerdir={},xino=on", paths.join(":"));
        if options.len() > MAX_MOUNT_DATA {
            return Err(failed(std::io::Error::other(format!(
                "{} layers that are not lazy make the mount options too long; index them with --min-layer-size 0",
                lower.len()
            ))));
        }
        let options = CString::new(options).map_err(|error| failed(error.into()))?;
        mount("overlay", target, "overlay", MountFlags::RDONLY, Some(options.as_c_str()))
            .map_err(|error| failed(error.into()))?;
        self.top = Some(target.to_owned());
        Ok(())
    }

    /// Whether anything has been unmounted behind our back.
    pub(super) fn is_finished(&self) -> bool {
        let gone = self.top.as_ref().is_some_and(|top| !is_mounted(top));
        gone || self.runs.iter().any(Mounted::is_finished)
    }

    /// What the kernel has asked.
    pub(super) fn counts(&self) -> KernelCounts {
        let sum = |count: fn(&FuseStats) -> u64| self.runs.iter().map(|run| count(run.stats())).sum();
        KernelCounts {
            requests: sum(FuseStats::requests),
            reads: sum(FuseStats::reads),
            misses: sum(FuseStats::misses),
        }
    }

    pub(super) fn unmount(&mut self) {
        // Somebody else may have unmounted it already.
        if let Some(top) = self.top.take().filter(|top| is_mounted(top)) {
            detach(&top);
        }
        self.runs.clear();
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// The error for a run, whose lowest layer is `first`, that cannot be mounted at `path`.
fn front_error(error: FrontError, first: usize, path: &Path) -> StackError {
    match error {
        // Unpacked, it has no such limit.
        FrontError::Tree(error @ AddTreeError::TooManyEntries { position, .. }) => {
            StackError::Tree { layer: first + position, why: WhyNotLazy::unmountable(error) }
        }
        FrontError::Tree(error) => io_error("serve", path)(std::io::Error::other(error)).into(),
        FrontError::Fuse(error) => MountImageError::from(error).into(),
        FrontError::Erofs(error) => MountImageError::from(error).into(),
        FrontError::OldImage { path, source } => io_error("remove", &path)(source).into(),
    }
}

fn parts(layers: &[Layer]) -> Vec<StackPart<Vec<TreeLayer<'_>>, UnpackedDirectory<'_>>> {
    stack_parts(layers.iter().enumerate().map(|(position, layer)| match layer.unpacked() {
        Some(unpacked) => StackPart::Directory(unpacked),
        None => StackPart::Tree((position, layer)),
    }))
}
