"""One extension for all CPythons from 3.10 on: it keeps to the limited API."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "caddysnake_speedups",
            ["src/caddysnake_speedups.c"],
            py_limited_api=True,
            extra_compile_args=["-O2", "-Wall", "-Wextra", "-fvisibility=hidden"],
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
