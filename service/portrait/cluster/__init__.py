"""Several pods as one service: ids that name their pod, TLS among those who share a secret, and who they are."""
