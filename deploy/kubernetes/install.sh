#!/bin/sh
# Installs the snapshotter on the node that this pod runs on, and starts it there under systemd.
#
# Runs as root in a privileged pod with the host's process ids, the host's root directory at $HOST, and the daemon's
# configuration at $CONFIG if there is one. May be run any number of times. It never restarts a running daemon, because
# containers lose their lazy layers then, and never touches containerd's configuration.
set -eu

HOST=${HOST:-/host}
PAYLOAD=${PAYLOAD:-/payload}
CONFIG=${CONFIG:-/config/config.toml}
KEYCHAIN=${KEYCHAIN:-/keychain}
ETC=$HOST/etc/soci-snapshotter-grpc
changed=

say() { echo "soci-snapshotter: $*"; }
host() { nsenter --target 1 --mount -- "$@"; }

# put SOURCE TARGET MODE: the file is there as a whole or not at all.
put() {
    if [ -f "$2" ] && cmp -s "$1" "$2"; then
        chmod "$3" "$2"
        return
    fi
    temporary=$2.new.$$
    (umask 077 && cp "$1" "$temporary")
    chmod "$3" "$temporary"
    mv "$temporary" "$2"
    changed=yes
    say "installed ${2#"$HOST"}"
}

if ! [ -d "$HOST/run/systemd/system" ]; then
    say "this node is not run by systemd; install the snapshotter in another way" >&2
    exit 1
fi
mkdir -p "$HOST/usr/local/bin" "$HOST/etc/systemd/system" "$ETC"
put "$PAYLOAD/bin/soci" "$HOST/usr/local/bin/soci" 755
put "$PAYLOAD/bin/soci-snapshotter-grpc" "$HOST/usr/local/bin/soci-snapshotter-grpc" 755
for unit in soci-snapshotter.service soci-snapshotter.socket; do
    put "$PAYLOAD/units/$unit" "$HOST/etc/systemd/system/$unit" 644
done
if [ -f "$CONFIG" ]; then
    put "$CONFIG" "$ETC/config.toml" 600
fi

# With the keychain's account mounted (keychain.yaml), a kubeconfig for the daemon.
if [ -f "$KEYCHAIN/token" ]; then
    kubeconfig=$(mktemp)
    cat > "$kubeconfig" <<YAML
apiVersion: v1
kind: Config
clusters:
- name: cluster
  cluster:
    server: ${KEYCHAIN_SERVER:-https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT}
    certificate-authority-data: $(base64 -w 0 < "$KEYCHAIN/ca.crt")
users:
- name: soci-snapshotter
  user:
    token: $(cat "$KEYCHAIN/token")
contexts:
- name: soci-snapshotter
  context: {cluster: cluster, user: soci-snapshotter}
current-context: soci-snapshotter
YAML
    put "$kubeconfig" "$ETC/kubeconfig" 600
    rm -f "$kubeconfig"
fi

# Files that a container wrote may have a label that systemd must not execute.
if host sh -c 'command -v restorecon' > /dev/null 2>&1; then
    host restorecon -F /usr/local/bin/soci /usr/local/bin/soci-snapshotter-grpc \
        /etc/systemd/system/soci-snapshotter.service /etc/systemd/system/soci-snapshotter.socket
    host restorecon -RF /etc/soci-snapshotter-grpc
fi

# What would keep the daemon from starting is said here.
host /usr/local/bin/soci-snapshotter-grpc config dump > /dev/null

running=
if host systemctl is-active --quiet soci-snapshotter.service; then
    running=yes
fi
host systemctl daemon-reload
host systemctl enable --quiet soci-snapshotter.socket soci-snapshotter.service
host systemctl start soci-snapshotter.socket soci-snapshotter.service
if [ -n "$running" ] && [ -n "$changed" ]; then
    say "the daemon runs with what it was started with; drain the node and restart soci-snapshotter.service there"
fi
# What belongs into containerd's configuration on this node, ready to be put there. Nothing reads it by itself.
if host /usr/local/bin/soci-snapshotter-grpc config containerd > "$ETC/containerd.toml.new"; then
    mv "$ETC/containerd.toml.new" "$ETC/containerd.toml"
    say "wrote etc/soci-snapshotter-grpc/containerd.toml; docs/install.md says how containerd gets it"
else
    rm -f "$ETC/containerd.toml.new"
fi
# What is not well on this node yet, such as a containerd that does not know the snapshotter, is no failure of this script.
host /usr/local/bin/soci-snapshotter-grpc doctor || say "the node is not ready yet: see above, and docs/install.md"
say "done"
