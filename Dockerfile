# The README's installation: docker build -t gradatlas .
# How to run it: docs/clusters.md
FROM python:3.11-slim-bookworm
WORKDIR /opt/gradatlas
COPY . .
RUN python3 -m venv .venv && .venv/bin/pip install --no-cache-dir -r requirements.txt
# For users whom the image does not know: no home folder, no name.
ENV PATH=/opt/gradatlas/.venv/bin:$PATH XDG_CACHE_HOME=/tmp USER=user
WORKDIR /study
ENTRYPOINT ["snakemake", "--snakefile", "/opt/gradatlas/Snakefile"]
