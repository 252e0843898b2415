"""What pyproject.toml cannot say: configs/ of the checkout is cm2pyro/configs of the wheel."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["cm2pyro*"]), "cm2pyro.configs"], package_dir={"cm2pyro.configs": "configs"})
