# SPDX-License-Identifier: MIT
from lane import Lane


class PowerLane(Lane):
    power = True
