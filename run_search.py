"""Search a space of recommenders: `python run_search.py search_spaces/mind_llm.yaml`.

The same command runs alone, on a Ray cluster (`--address`, or RAY_ADDRESS in the environment), and
as a job (`ray job submit --working-dir . -- python run_search.py ...`). `--help` lists the options.
"""

from legoray.cli import run_search_main

if __name__ == "__main__":
    run_search_main()
