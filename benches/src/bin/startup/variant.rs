//! What is compared: ways to get an image into containerd.

use std::path::PathBuf;

/// A way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Variant {
    /// Our snapshotter with its defaults.
    Lazy,
    /// The same, where the image was started before and its start was recorded. Nothing else is left of that.
    Recorded,
    /// Our snapshotter, which fetches and unpacks whole layers.
    Eager,
    /// containerd's own: `ctr image pull`.
    Overlayfs,
    /// Somebody else's snapshotter, which runs already.
    Peer(Peer),
}

/// Another snapshotter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// In the tables, and the snapshotter's name in containerd.
    pub(crate) name: String,
    pub(crate) socket: PathBuf,
    /// A shell command.
    pub(crate) pull: String,
    /// A shell command that makes it cold, run before each start.
    pub(crate) reset: Option<String>,
}

/// What `--variant` may say, besides `--peer`.
pub(crate) const VARIANTS: [(&str, Variant); 4] = [
    ("lazy", Variant::Lazy),
    ("recorded", Variant::Recorded),
    ("eager", Variant::Eager),
    ("overlayfs", Variant::Overlayfs),
];

impl Variant {
    /// In tables.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Peer(peer) => &peer.name,
            own => VARIANTS.iter().find(|(_, variant)| variant == own).map_or("", |(name, _)| name),
        }
    }

    /// For `ctr --snapshotter`.
    pub(crate) fn snapshotter(&self) -> &str {
        match self {
            Self::Lazy | Self::Recorded | Self::Eager => "soci",
            Self::Overlayfs => "overlayfs",
            Self::Peer(peer) => &peer.name,
        }
    }

    /// The variants of the command line; all of ours if none is named.
    pub(crate) fn select(names: &[String], peers: &[String], resets: &[String]) -> Result<Vec<Self>, String> {
        let named = |name: &String| {
            let found = VARIANTS.into_iter().find(|(known, _)| known == name);
            let known = VARIANTS.map(|(name, _)| name).join(", ");
            found.map(|(_, variant)| variant).ok_or(format!("{name:?} is no variant; there are {known}"))
        };
        let mut all = names.iter().map(named).collect::<Result<Vec<_>, _>>()?;
        if names.is_empty() {
            all.extend(VARIANTS.map(|(_, variant)| variant));
        }
        let mut peers = peers.iter().map(|text| Peer::parse(text)).collect::<Result<Vec<_>, _>>()?;
        for reset in resets {
            let (name, command) =
                reset.split_once('=').ok_or(format!("{reset:?}: --peer-reset is NAME=COMMAND"))?;
            let peer = peers.iter_mut().find(|peer| peer.name == name);
            peer.ok_or(format!("--peer-reset {name}: there is no --peer of that name"))?.reset =
                Some(command.into());
        }
        all.extend(peers.into_iter().map(Self::Peer));
        Ok(all)
    }
}

impl Peer {
    fn parse(text: &str) -> Result<Self, String> {
        let parse = || {
            let (name, rest) = text.split_once('=')?;
            let (socket, pull) = rest.split_once(',')?;
            // It becomes a name in containerd's configuration.
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            let fine =
                !name.is_empty() && name.chars().all(plain) && !socket.is_empty() && pull.contains("{ref}");
            let taken = name == "soci" || VARIANTS.iter().any(|(known, _)| *known == name);
            (fine && !taken).then(|| Self {
                name: name.into(),
                socket: socket.into(),
                pull: pull.into(),
                reset: None,
            })
        };
        parse().ok_or_else(|| {
            format!(
                "{text:?}: --peer is NAME=SOCKET,COMMAND, with {{ref}} in the command, such as \
                 'stargz=/run/containerd-stargz-grpc/containerd-stargz-grpc.sock,ctr-remote --address {{address}} -n \
                 {{namespace}} image rpull --plain-http {{ref}}'; soci and the names of our variants are taken"
            )
        })
    }

    /// The pull command for an image.
    pub(crate) fn command(&self, reference: &str, address: &str, namespace: &str) -> String {
        self.pull
            .replace("{ref}", reference)
            .replace("{address}", address)
            .replace("{namespace}", namespace)
            .replace("{snapshotter}", &self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_read() {
        let peers = ["other=/run/o.sock,pull -a {address} {ref}, slowly".to_owned()];
        let resets = ["other=systemctl restart other".to_owned()];
        let all = Variant::select(&["lazy".into()], &peers, &resets).unwrap();
        let [Variant::Lazy, Variant::Peer(peer)] = &all[..] else { panic!("{all:?}") };
        assert_eq!(peer.command("r/x:1", "/run/c", "default"), "pull -a /run/c r/x:1, slowly");
        assert_eq!(peer.reset.as_deref(), Some("systemctl restart other"));
        assert_eq!(Variant::select(&[], &[], &[]).unwrap().len(), 4);
        for wrong in
            ["", "x", "x=/s", "x=/s,pull", "=/s,{ref}", "a.b=/s,{ref}", "soci=/s,{ref}", "lazy=/s,{ref}"]
        {
            assert!(Variant::select(&[], &[wrong.into()], &[]).is_err(), "{wrong}");
        }
        assert!(Variant::select(&["fast".into()], &[], &[]).is_err());
        assert!(Variant::select(&[], &[], &["x=y".into()]).is_err());
    }
}
