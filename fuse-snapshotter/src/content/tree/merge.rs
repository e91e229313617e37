//! Laying one layer over the layers below it.

use super::draft::{Directory, Draft, DraftError, Node};
use super::path;

/// The image that the lowest layer alone makes. Its whiteouts and marks are for what lies below the image, if anything.
pub(super) fn lowest(mut layer: Draft<'_>) -> Draft<'_> {
    for node in &mut layer.nodes {
        if let Node::Directory(directory) = node {
            directory.opaque |= directory.replaces;
        }
    }
    layer
}

/// Applies `layer` to `image`. `bottom`: nothing lies below the image, so that whiteouts and opaque marks need
/// not be kept for it.
///
/// A directory merges with a directory below it and inherits its attributes if the layer does not mention it
/// itself; everything else replaces what is below.
pub(super) fn apply<'a>(image: &mut Draft<'a>, layer: Draft<'a>, bottom: bool) -> Result<(), DraftError<'a>> {
    let too_many = (&b""[..], "too many entries");
    let base = u32::try_from(image.nodes.len()).map_err(|_| too_many)?;
    u32::try_from(image.nodes.len() + layer.nodes.len()).map_err(|_| too_many)?;
    // Targets are those of the layers below, whatever this layer puts in their place or hides.
    let resolved = layer.links.iter().map(|link| resolve(image, &layer.nodes[*link as usize]));
    let resolved: Vec<_> = resolved.collect::<Result<_, _>>()?;
    image.nodes.extend(layer.nodes.into_iter().map(|node| rebase(node, base)));
    for (link, target) in layer.links.iter().zip(resolved) {
        if let Some(target) = target {
            image.nodes[(base + link) as usize] = Node::Alias(target);
        }
    }
    // Pairs of directories that merge; a list instead of recursion, since layers decide how deep it goes.
    let mut pairs = vec![(0, base)];
    while let Some((lower, upper)) = pairs.pop() {
        let taken = std::mem::replace(&mut image.nodes[upper as usize], Node::Whiteout);
        let Node::Directory(upper) = taken else { continue };
        let Some(directory) = image.directory_mut(lower) else { continue };
        if upper.meta.is_some() {
            directory.meta = upper.meta;
        }
        if upper.opaque {
            directory.children.clear();
            directory.opaque = true;
        }
        for (name, child) in upper.children {
            if let Some(pair) = merge_child(image, lower, name, child, bottom) {
                pairs.push(pair);
            }
        }
    }
    Ok(())
}

/// The file that a link names. Links without one stay as they are: they are wrong only if they are visible in the end.
fn resolve<'a>(image: &Draft<'a>, link: &Node<'a>) -> Result<Option<u32>, DraftError<'a>> {
    let Node::Link(link) = link else { return Ok(None) };
    let components = path::components(link.target).map_err(|reason| (link.name, reason))?;
    let found = image.find(&components);
    Ok(found.and_then(|node| match image.nodes[node as usize] {
        Node::File(..) => Some(node),
        Node::Alias(target) => Some(target),
        _ => None,
    }))
}

/// Puts a child of a layer's directory into the image's; returns the pair if both are directories that merge.
fn merge_child<'a>(
    image: &mut Draft<'a>,
    parent: u32,
    name: &'a [u8],
    child: u32,
    bottom: bool,
) -> Option<(u32, u32)> {
    let existing = image.child(parent, name);
    let lower = existing.filter(|node| image.directory(*node).is_some());
    match &mut image.nodes[child as usize] {
        Node::Whiteout if bottom => {
            image.directory_mut(parent)?.children.remove(name);
        }
        Node::Directory(Directory { replaces: false, .. }) if lower.is_some() => {
            return lower.map(|lower| (lower, child));
        }
        Node::Directory(directory) => {
            // It hides something of its own run, and so, too, whatever lies below the run.
            directory.replaces |= existing.is_some();
            directory.opaque |= directory.replaces;
            image.insert(parent, name, child);
        }
        _ => image.insert(parent, name, child),
    }
    None
}

fn rebase(node: Node<'_>, base: u32) -> Node<'_> {
    match node {
        Node::Directory(mut directory) => {
            directory.children.values_mut().for_each(|child| *child += base);
            Node::Directory(directory)
        }
        other => other,
    }
}
