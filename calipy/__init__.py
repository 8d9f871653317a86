"""CalIPy: a routed pod network for Kubernetes in the manner of Calico."""
