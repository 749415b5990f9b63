"""Packaging of onehost. The checkout's root is the package `onehost`; only that name reaches site-packages."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
EXCLUDED = ["build*", "docs*", "examples*", "ops*", "tests*"]

setup(
    name="onehost",
    version="0.1.0",
    description="A rack of Linux servers acts as one virtual web host.",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8") if (ROOT / "README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    package_dir={"onehost": "."},
    py_modules=["onehost.__init__"],
    packages=[f"onehost.{name}" for name in find_packages(exclude=EXCLUDED)],
    package_data={"": ["py.typed", "*.ini", "*.mako", "*.html", "*.lua", "*.conf"]},
    install_requires=[
        "alembic>=1.13",
        "click>=8.1",
        "cryptography>=43",
        "idna>=3.7",
        "kombu>=5.5",
        "libpass>=1.9",
        "marshmallow>=4.0",
        "pika>=1.3,<2",
        "prometheus-client>=0.20",
        "publicsuffixlist>=1.0",
        "pyyaml>=6.0",
        "rich>=13.0",
        "sqlalchemy>=2.0.30",
        "supervisor>=4.3",
    ],
    extras_require={
        "postgresql": ["psycopg[binary]>=3.2"],
        "test": [
            "hypothesis",
            "import-linter",
            "mypy",
            "pytest",
            "pytest-timeout",
            "ruff",
            "types-PyYAML",
        ],
    },
    entry_points={"console_scripts": ["onehost=onehost.producer.cli:main"]},
)
