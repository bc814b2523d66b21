"""Eight workers of a search on a Ray cluster: python docs/ray_workers.py STUDY."""

import subprocess
import sys

import ray


@ray.remote(num_gpus=1, max_retries=40)
def work(study: str) -> None:
    subprocess.run([sys.executable, "-m", "mammo", "worker", "--study", study], check=True)


ray.get([work.remote(sys.argv[1]) for _ in range(8)])
