# Removes a container once its owner lets go or dies: the end of standard input says so.
# Argument: the container's name.
trap '' HUP INT TERM
read -r _

if command -v docker >/dev/null; then
    exec docker rm --force --volumes "$1"
fi
socket=${DOCKER_HOST#unix://}
exec curl --silent --unix-socket "${socket:-/var/run/docker.sock}" \
    --request DELETE "http://localhost/containers/$1?force=true&v=true"
