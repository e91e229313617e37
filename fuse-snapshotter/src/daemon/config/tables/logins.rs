//! Logins for registries.

use crate::daemon::config::keys::Kind;
use crate::daemon::config::table::tables;
use crate::daemon::config::values::CONTAINERD_SOCKET;

tables! {
    /// Logins from the secrets of a cluster.
    KubeconfigKeychain("kubeconfig_keychain") {
        /// Use registry credentials from the secrets of a Kubernetes cluster.
        enable_keychain: bool = false, Kind::Bool;
        /// The kubeconfig to reach it with. Empty: $KUBECONFIG, else ~/.kube/config.
        kubeconfig_path: String = String::new(), Kind::Text;
    }

    /// Logins from the requests of the kubelet.
    CriKeychain("cri_keychain") {
        /// Use registry credentials that the kubelet sends: its image service must be this program's socket.
        enable_keychain: bool = false, Kind::Bool;
        /// Socket of the real image service, to which its requests are passed on. Empty: the default.
        image_service_path: String = CONTAINERD_SOCKET.into(), Kind::Text, zero_is_default;
    }
}
