"""Maps the folders that lie beside avgn/ and ship inside it; all else is in pyproject.toml."""

from setuptools import find_packages, setup

BESIDE = ("export", "kernels", "runtime")


def packages_and_dirs() -> tuple[list[str], dict[str, str]]:
    # the links avgn/export, avgn/kernels and avgn/runtime serve the checkout alone: what ships comes from here
    names = find_packages(include=["avgn", "avgn.*"], exclude=[f"avgn.{name}*" for name in BESIDE])
    dirs = {"avgn": "avgn"}
    for name in BESIDE:
        dirs[f"avgn.{name}"] = name
        names += [f"avgn.{found}" for found in find_packages(include=[name, f"{name}.*"])]
    return names, dirs


PACKAGES, PACKAGE_DIR = packages_and_dirs()

setup(packages=PACKAGES, package_dir=PACKAGE_DIR)
