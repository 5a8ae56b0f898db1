"""`python -m pipelines` is `fde`."""

from pipelines.cli import main

if __name__ == "__main__":
    main()
