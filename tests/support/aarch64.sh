#!/usr/bin/env bash
# Run the runtime on aarch64 under qemu's user emulation: real Arm code of NumPy, Pillow and ONNX Runtime, real results,
# and no meaning in its times. Needs root and apt (Debian or Ubuntu); everything but qemu itself goes into one folder.
#
#   tests/support/aarch64.sh FOLDER                        make the folder, once
#   tests/support/aarch64.sh FOLDER -m pytest tests/runtime/test_session.py
#   CPU=cortex-a72 tests/support/aarch64.sh FOLDER -m edgesmith verify bundles/mobilenetv2
#
# CPU: cortex-a72 (Raspberry Pi 4, no dot product) or cortex-a76 (Pi 5, with it; the default). Limits of a process's memory
# have no effect under emulation: tests/runtime/test_guard.py::test_memory_is_bounded fails there.
set -euo pipefail
project=$(cd "$(dirname "$0")/../.." && pwd)
folder=$(mkdir -p "$1" && cd "$1" && pwd)
shift
root=$folder/root site=$folder/site
packages="libc6 libgcc-s1 libstdc++6 zlib1g libssl3 libffi8 libexpat1 libsqlite3-0 liblzma5 libbz2-1.0 libuuid1 libtinfo6
  libncursesw6 libreadline8 libcrypt1 libdb5.3 libnsl2 libtirpc3 libgssapi-krb5-2 libkrb5-3 libk5crypto3 libcom-err2
  libkrb5support0 libkeyutils1 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib python3.11"
wheels="numpy pillow click rich onnxruntime onnx pytest pytest-timeout hypothesis jsonschema"

if [ ! -e "$folder/ready" ]; then
  rm -rf "$root" "$site" "$folder/debs"
  dpkg --add-architecture arm64
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends qemu-user-static >/dev/null
  mkdir -p "$folder/debs" "$root"
  # shellcheck disable=SC2086
  (cd "$folder/debs" && apt-get download -qq $(printf '%s:arm64 ' $packages) 2>/dev/null)
  for deb in "$folder"/debs/*.deb; do dpkg -x "$deb" "$root"; done
  # shellcheck disable=SC2086
  "$project/.venv/bin/python" -m pip install --quiet --disable-pip-version-check --target "$site" --only-binary=:all: \
    --python-version 3.11 --implementation cp --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
    --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 -c "$project/constraints.txt" $wheels
  ln -sfn "$project" "$site/edgesmith"
  # qemu shows the host's processor in /proc and /sys, which ONNX Runtime's look-up of Arm cores does not survive; files
  # below the root go before the host's.
  mkdir -p "$root/proc"
  for core in 0 1; do
    about=$root/sys/devices/system/cpu/cpu$core
    mkdir -p "$about/topology" "$about/cpufreq" "$about/cache/index2"
    echo 0 > "$about/topology/physical_package_id"
    echo 0-1 | tee "$about/topology/cluster_cpus_list" > "$about/topology/core_siblings_list"
    echo "$core" > "$about/topology/core_id"
    echo 2400000 > "$about/cpufreq/cpuinfo_max_freq"
    echo 1500000 > "$about/cpufreq/cpuinfo_min_freq"
    echo 2 > "$about/cache/index2/level"
    echo 512K > "$about/cache/index2/size"
    echo "$core" > "$about/cache/index2/shared_cpu_list"
  done
  echo 0-1 | tee "$root/sys/devices/system/cpu/possible" > "$root/sys/devices/system/cpu/present"
  touch "$folder/ready"
fi
[ $# -gt 0 ] || exit 0
export QEMU_CPU=${CPU:-cortex-a76}
case $QEMU_CPU in
  cortex-a72) part=0xd08 features="fp asimd aes crc32 cpuid" ;;
  cortex-a76) part=0xd0b features="fp asimd aes crc32 atomics fphp asimdhp cpuid asimdrdm asimddp" ;;
  *) echo "CPU is $QEMU_CPU; expected cortex-a72 or cortex-a76" >&2; exit 2 ;;
esac
for core in 0 1; do
  printf 'processor\t: %d\nFeatures\t: %s\nCPU implementer\t: 0x41\nCPU architecture: 8\n' "$core" "$features"
  printf 'CPU variant\t: 0x4\nCPU part\t: %s\nCPU revision\t: 1\n\n' "$part"
done > "$root/proc/cpuinfo"
# Children of the emulated Python are Arm programs too: the kernel hands them to qemu once it knows the format.
known=/proc/sys/fs/binfmt_misc
[ -e $known/register ] || mount -t binfmt_misc binfmt_misc $known
if ! ls $known | grep -q aarch64; then
  magic='\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
  mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
  echo ":edgesmith-aarch64:M::$magic:$mask:$(command -v qemu-aarch64-static):OF" > $known/register
fi
export QEMU_LD_PREFIX=$root PYTHONHOME=$root/usr PYTHONPATH=$site:$project/tests
export PYTHONDONTWRITEBYTECODE=1 LC_ALL=C.UTF-8
exec qemu-aarch64-static -L "$root" "$root/usr/bin/python3.11" "$@"
