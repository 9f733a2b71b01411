import subprocess
import sys


def test_learner_loads_monai_without_the_packages_it_does_not_use() -> None:
    check = (
        "import sys, fedmodal.flare.learner\n"
        "assert 'monai.networks.nets' in sys.modules\n"
        "assert not {'matplotlib', 'scipy.signal', 'requests'} & set(sys.modules), sys.modules.keys()\n"
        "import scipy.signal, matplotlib.pyplot  # and they can still be imported afterwards\n"
    )
    subprocess.run([sys.executable, "-c", check], check=True)  # noqa: S603
