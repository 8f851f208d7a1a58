"""The systems that the network is compared with: one file each behind the interface of `avgn.model.LocalizerModel`."""
