# Sourced by the batch scripts of this folder before they start anything: the place for what your site needs,
# such as `module load` lines. As it stands it activates the checkout's own environment, if `make` built one.

environment=$(dirname "${BASH_SOURCE[0]}")/../.venv
if [ -r "$environment/bin/activate" ]; then
    . "$environment/bin/activate"
fi
