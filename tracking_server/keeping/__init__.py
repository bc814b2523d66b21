"""How the tracking server is kept: backups, restoring, upgrades, and what may be thrown away."""
