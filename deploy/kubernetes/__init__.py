"""What the Kubernetes objects take from elsewhere, and the Helm chart that is made of them."""
