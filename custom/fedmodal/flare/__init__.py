"""All that imports nvflare: the learner, its checks, the jobs and the run on one machine."""
