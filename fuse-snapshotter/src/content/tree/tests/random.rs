//! Random layers, against the oracle of `testdata`.

use proptest::collection::vec;
use proptest::prelude::*;
use testdata::expected::{self, NodeType, merge_entries};
use testdata::image::{Entry, Kind};

use super::{assert_same, merge, merge_below, walk};
use crate::content::tree::{
    Below, DirectoryAttributes, Inode, InodeIndex, InodeKind, OverlayNamespace, Tree,
};

/// Few names, so that layers meet.
fn path() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec!["a", "b", "cc"]);
    let odd = prop::sample::select(vec!["", "", "", "./", "/", "x/../", "../", ".//"]);
    let depth = prop_oneof![1..3_usize, 1..4_usize];
    depth.prop_flat_map(move |depth| vec((odd.clone(), name.clone()), depth)).prop_map(|parts| {
        parts.iter().map(|(odd, name)| format!("{odd}{name}")).collect::<Vec<_>>().join("/")
    })
}

fn xattrs() -> impl Strategy<Value = Vec<(&'static str, u8)>> {
    let name = prop::sample::select(vec![
        "user.k",
        "user.j",
        "security.capability",
        "trusted.overlay.opaque",
        "user.overlay.x",
    ]);
    prop_oneof![4 => Just(Vec::new()), 1 => vec((name, any::<u8>()), 1..3)]
}

fn attributes(entry: Entry) -> impl Strategy<Value = Entry> {
    let mode = prop::sample::select(vec![0o644, 0o755, 0o1777, 0o4711, 0o100_600, 0]);
    (mode, 0..3_u64, 0..3_u64, -1..3_i64, prop::sample::select(vec![0, 1, 500_000_000]), xattrs()).prop_map(
        move |(mode, uid, gid, mtime, nanos, xattrs)| {
            let entry = entry.clone().mode(mode).owner(uid, gid).mtime(mtime, nanos);
            xattrs.into_iter().fold(entry, |entry, (name, value)| entry.xattr(name, [value]))
        },
    )
}

fn entry() -> impl Strategy<Value = Entry> {
    let any = prop_oneof![
        9 => (path(), 0..3_usize).prop_map(|(path, length)| Entry::file(path, vec![b'x'; length])),
        4 => path().prop_map(Entry::dir),
        1 => Just(Entry::dir("./")),
        1 => (path(), path()).prop_map(|(path, target)| Entry::symlink(path, target)),
        6 => (path(), path()).prop_map(|(path, target)| Entry::hard_link(path, target)),
        3 => path().prop_map(Entry::whiteout),
        1 => path().prop_map(Entry::opaque),
        1 => Just(Entry::opaque("")),
        1 => path().prop_map(|path| Entry::char_device(path, 0, 0)),
        1 => path().prop_map(|path| Entry::char_device(path, 1, 3)),
        1 => path().prop_map(|path| Entry::block_device(path, 8, 1)),
        1 => path().prop_map(Entry::fifo),
        1 => path().prop_map(|path| Entry::file(format!("{path}/.wh..wh.x"), "")),
    ];
    any.prop_flat_map(attributes)
}

/// Layers that a tree can be made of.
pub(crate) fn layers() -> impl Strategy<Value = Vec<Vec<Entry>>> {
    vec(vec(entry(), 0..14), 1..5).prop_map(without_dangling_links)
}

fn clean(name: &[u8]) -> Vec<u8> {
    super::super::path::components(name).unwrap().join(&b'/')
}

/// Gives hard links that the oracle would leave out another target, or takes them away: the tree refuses them.
fn without_dangling_links(mut layers: Vec<Vec<Entry>>) -> Vec<Vec<Entry>> {
    for layer in 0..layers.len() {
        let below = merge_entries(layers[..layer].iter().map(Vec::as_slice));
        let mut kept: Vec<Entry> = Vec::new();
        // The same with files in place of links to what is below.
        let mut alone: Vec<Entry> = Vec::new();
        for mut entry in std::mem::take(&mut layers[layer]) {
            let path = clean(&entry.path);
            if let Kind::HardLink(target) = &mut entry.kind {
                let own = merge_entries([alone.as_slice()]);
                let is_file = |name: &Vec<u8>| {
                    let found = own.get(name).or_else(|| below.get(name));
                    // What is to be a directory above the link is no file that it could name.
                    let above = path.starts_with(&[&name[..], b"/"].concat());
                    found.is_some_and(|node| node.node_type != NodeType::Dir) && !above
                };
                if !is_file(&clean(target)) {
                    let files: Vec<_> =
                        own.0.keys().chain(below.0.keys()).filter(|name| is_file(name)).collect();
                    let Some(other) = files.get(target.len() % files.len().max(1)) else { continue };
                    *target = other.to_vec();
                }
            }
            let link = matches!(entry.kind, Kind::HardLink(_));
            alone.push(if link { Entry::file(&entry.path, "") } else { entry.clone() });
            kept.push(entry);
        }
        layers[layer] = kept;
    }
    layers
}

/// What overlayfs makes of two trees, as far as it can be seen.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    path: Vec<u8>,
    kind: NodeType,
    mode: u16,
    owner: (u32, u32),
    mtime: (i64, u32),
    size: u64,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

fn seen(tree: &Tree, path: &[u8], index: InodeIndex) -> Seen {
    let inode = tree.inode(index);
    let xattrs = tree.xattrs(index).filter(|(name, _)| !name.starts_with(b"trusted.overlay."));
    Seen {
        path: path.to_vec(),
        kind: super::node_type(inode.kind),
        mode: inode.mode,
        owner: (inode.uid, inode.gid),
        mtime: (inode.mtime.seconds, inode.mtime.nanos),
        size: inode.size,
        xattrs: xattrs.map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
    }
}

fn is_whiteout(inode: &Inode) -> bool {
    (inode.kind, inode.device) == (InodeKind::Char, (0, 0))
}

fn is_opaque(tree: &Tree, index: InodeIndex) -> bool {
    tree.xattrs(index).any(|(name, _)| name == b"trusted.overlay.opaque")
}

/// Stacks by overlayfs's rules. The two parts are the directory in the upper and in the lower tree.
fn stack(upper: &Tree, lower: &Tree) -> Vec<Seen> {
    let mut all = Vec::new();
    let below = (!upper.hides_all_below()).then(|| lower.root());
    let mut pairs = vec![(Vec::new(), Some(upper.root()), below)];
    while let Some((path, up, down)) = pairs.pop() {
        let of = |name: &[u8]| {
            let slash: &[u8] = if path.is_empty() { b"" } else { b"/" };
            [&path[..], slash, name].concat()
        };
        match (up, down) {
            (Some(up), _) => all.push(seen(upper, &path, up)),
            (None, Some(down)) => all.push(seen(lower, &path, down)),
            (None, None) => unreachable!(),
        }
        let down = down.filter(|_| up.is_none_or(|up| !is_opaque(upper, up)));
        let is_directory = |tree: &Tree, index: &InodeIndex| tree.inode(*index).kind == InodeKind::Directory;
        for (name, child) in up.iter().flat_map(|up| upper.children(*up, 0)) {
            if is_whiteout(upper.inode(child)) {
                continue;
            }
            let below = down
                .and_then(|down| lower.lookup(down, name))
                .filter(|below| is_directory(upper, &child) && is_directory(lower, below));
            pairs.push((of(name), Some(child), below));
        }
        for (name, child) in down.iter().flat_map(|down| lower.children(*down, 0)) {
            if up.and_then(|up| upper.lookup(up, name)).is_none() {
                pairs.push((of(name), None, Some(child)));
            }
        }
    }
    all.sort_by(|a, b| a.path.cmp(&b.path));
    all
}

/// Gives directories that the upper tree only implies the attributes that they have below: overlayfs cannot.
fn inherit(upper: &mut Tree, lower: &Tree) {
    for (path, index) in upper.implied() {
        let Some(below) = lower.find(&path).filter(|at| lower.inode(*at).kind == InodeKind::Directory) else {
            continue;
        };
        let inode = lower.inode(below);
        let xattrs = lower.xattrs(below).map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        let (mode, uid, gid, mtime) = (inode.mode, inode.uid, inode.gid, inode.mtime);
        upper.describe(index, &DirectoryAttributes { mode, uid, gid, mtime, xattrs });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn merged_layers_are_what_the_oracle_expects(layers in layers()) {
        let expected = expected::merge_entries(layers.iter().map(Vec::as_slice));
        assert_same(&merge(&layers), &expected);
    }

    #[test]
    fn two_runs_stacked_by_overlayfs_are_one_run(layers in layers(), split in 0..5_usize) {
        let (lower, upper) = layers.split_at(split.min(layers.len() - 1));
        let whole = merge(&layers);
        let upper = merge_below(upper, Below::Layers(OverlayNamespace::Trusted));
        // A hard link to the lower run cannot be followed from the upper one.
        prop_assume!(upper.is_ok());
        let mut expected: Vec<_> = walk(&whole).iter().map(|(path, index)| seen(&whole, path, *index)).collect();
        expected.sort_by(|a, b| a.path.cmp(&b.path));
        let (mut upper, lower) = (upper.unwrap(), merge(lower));
        inherit(&mut upper, &lower);
        prop_assert_eq!(stack(&upper, &lower), expected);
    }

    #[test]
    fn any_entries_at_all_give_a_tree_or_an_error(
        names in vec(
            (vec(any::<u8>().prop_filter("NUL ends a name", |b| *b != 0), 1..20), 0..6_u8),
            0..20,
        ),
    ) {
        let entries: Vec<_> = names.into_iter().map(|(name, kind)| match kind {
            0 => Entry::file(name, "x"),
            1 => Entry::dir(name),
            2 => Entry::hard_link(name.clone(), name),
            3 => Entry::whiteout(name),
            4 => Entry::opaque(name),
            _ => Entry::symlink(name, "t"),
        }).collect();
        if let Ok(tree) = merge_below(&[entries], Below::Layers(OverlayNamespace::User)) {
            walk(&tree);
        }
    }
}

#[test]
fn the_generator_makes_what_it_promises() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let (mut links, mut below) = (0, 0);
    for _ in 0..200 {
        let layers = layers().new_tree(&mut runner).unwrap().current();
        let tree = merge_entries(layers.iter().map(Vec::as_slice));
        links += tree.hard_links().len();
        for group in tree.hard_links() {
            below += usize::from(tree.get(&group[0]).unwrap().layer != Some(layers.len() - 1));
        }
    }
    assert!(links > 50 && below > 20, "{links} {below}");
}
