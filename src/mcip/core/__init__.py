"""What every other package may use: errors, devices, progress, artefacts, exact nearest neighbours."""
