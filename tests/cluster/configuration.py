"""What the programs of a cluster are told. Pure: texts and command lines.

Paths are those on the machines: programs in /opt/kubernetes, certificates and settings in /etc/kubernetes. A node's
programs see the network namespace of their machine, but the one kernel of this host: what they would set for all of it,
they are told to leave.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

import msgspec

from calipy.lab.topology import RACKS, Host
from tests.cluster.control_plane import SERVICE_CIDRS

Proxy = Literal["iptables", "nftables", "none"]

PROGRAMS: Final = Path("/opt/kubernetes")
ETC: Final = Path("/etc/kubernetes")
POD_CIDRS: Final = ("10.244.0.0/16", "fd00:10:244::/56")
CLUSTER_DNS: Final = "10.96.0.10"
CONTROL: Final = Host("control", RACKS[0], 10)
"""The machine of the control plane stands in rack a, beside n1 (host 11)."""
PAUSE: Final = "local.test/pause:1"
CONTAINERD: Final = ("containerd", "--config", "/etc/containerd/containerd.toml")
IMPORT: Final = ("ctr", "--namespace", "k8s.io", "images", "import")
SERVER: Final = f"https://{CONTROL.address(4)}:6443"
FIXED_SYSCTLS: Final = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
"""kubelet wants these, and they are the whole host's: on a node, files with these values lie over them."""


def containerd() -> str:
    """containerd.toml. `restrict_oom_score_adj`: a root that lacks CAP_SYS_RESOURCE can't lower scores."""
    return f"""\
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
oom_score = 0
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/opt/cni/bin"
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
"""


def kubelet(cgroup: str) -> bytes:
    """kubelet.json. `cgroup`: below it lie the cgroups of the node's pods. The disk is the host's: how full it is, is
    no reason to evict pods."""
    return msgspec.json.encode(
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "readOnlyPort": 0,
            "tlsCertFile": str(ETC / "kubelet.crt"),
            "tlsPrivateKeyFile": str(ETC / "kubelet.key"),
            "authentication": {
                "anonymous": {"enabled": False},
                "webhook": {"enabled": True},
                "x509": {"clientCAFile": str(ETC / "ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": cgroup,
            "enforceNodeAllocatable": ["pods"],
            "failCgroupV1": False,
            "failSwapOn": False,
            "protectKernelDefaults": True,
            "oomScoreAdj": 0,
            "clusterDNS": [CLUSTER_DNS],
            "clusterDomain": "cluster.local",
            "resolvConf": "",
            "evictionHard": dict.fromkeys(
                ("memory.available", "nodefs.available", "imagefs.available", "nodefs.inodesFree"), "0%"
            ),
            "imageGCHighThresholdPercent": 100,
            "serializeImagePulls": False,
            "maxPods": 110,
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            "nodeStatusUpdateFrequency": "5s",
            "syncFrequency": "10s",
        }
    )


def kubelet_command(node: Host) -> tuple[str, ...]:
    """A node's kubelet, with an address of each family."""
    return (
        *(str(PROGRAMS / "kubelet"), f"--config={ETC}/kubelet.json", f"--kubeconfig={ETC}/kubelet.kubeconfig"),
        *(f"--hostname-override={node.name}", f"--node-ip={node.address(4)},{node.address(6)}"),
        f"--node-labels=topology.kubernetes.io/zone={node.segment.name}",
    )


def kube_proxy(node: str, mode: Proxy) -> bytes:
    """kube-proxy.json. Limits of conntrack can only be set in the host's own network namespace."""
    return msgspec.json.encode(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": mode,
            "clientConnection": {"kubeconfig": str(ETC / "kube-proxy.kubeconfig")},
            "hostnameOverride": node,
            "clusterCIDR": ",".join(POD_CIDRS),
            "oomScoreAdj": 0,
            "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        }
    )


KUBE_PROXY: Final = (str(PROGRAMS / "kube-proxy"), f"--config={ETC}/kube-proxy.json")


def controller_manager_command(pki: Path) -> tuple[str, ...]:
    """kube-controller-manager; its own throttle would make its start slow."""
    return (
        *(str(PROGRAMS / "kube-controller-manager"), f"--kubeconfig={pki}/controller-manager.kubeconfig"),
        *("--leader-elect=false", "--bind-address=127.0.0.1", "--use-service-account-credentials=true"),
        *("--kube-api-qps=500", "--kube-api-burst=1000", "--profiling=false"),
        *(f"--service-account-private-key-file={pki}/sa.key", f"--root-ca-file={pki}/ca.crt"),
        *(f"--cluster-signing-cert-file={pki}/ca.crt", f"--cluster-signing-key-file={pki}/ca.key"),
        *("--allocate-node-cidrs=true", f"--cluster-cidr={','.join(POD_CIDRS)}"),
        f"--service-cluster-ip-range={','.join(SERVICE_CIDRS)}",
    )


def scheduler_command(pki: Path) -> tuple[str, ...]:
    """kube-scheduler."""
    return (
        *(str(PROGRAMS / "kube-scheduler"), f"--kubeconfig={pki}/scheduler.kubeconfig", "--leader-elect=false"),
        *("--bind-address=127.0.0.1", "--profiling=false"),
    )
