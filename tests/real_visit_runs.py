"""Twenty runs of the real VISIT at Lambir Hills, stated as facts: what it computed for which parameters.

Source: the first trajectory (116 runs, of which these are 20) of the published Morris design of 232 VISIT runs at LHP
(2010-2019, ERA5 weather; means over ten years). Along it one parameter moves a step, once, and stays.
"""

import numpy as np

# step at which it moves, name, value before, value from that step on; parameters that this process model does not have
# (ozone, C4 and other schemes) are left out
MOVES = """
    2 tree_tmax 44.4 33.6; 3 c3_sla 350 158; 5 c3_rmr_h 0.302 0.005; 6 c3_ek0 150 300;
    8 c3_lf0 0.001 0.004; 9 soil_f_hm_p 0.2 0.8; 11 c3_tmin 20 5; 14 tree_rmr_h 0.104 0.401;
    17 c3_kmci 198 450; 18 c3_pmax 16.8 30; 19 c3_rmr_s 0.014 0.041; 20 c3_cmpcd0 90 48;
    22 tree_ek0 0.9 0.42; 23 c3_rmf0 0.01 1.204; 24 tree_lr0 0.005 0.002; 25 soil_f_hm_i 0.4 0.1;
    27 soil_kmsh 0.39 0.9; 28 c3_ctmp_lfshd 5 14; 29 c3_qTf0 1 2.2; 31 c3_lr0 0 0.003;
    32 c3_gs_b1 20000 9800; 34 c3_rgc 0.5 0.26; 35 tree_rmr_s 0.005 0.032; 36 tree_alloc_abg 0.58 0.1;
    38 tree_cmpcd0 20 62; 39 tree_root_spt_a 8.6 4.4; 40 c3_ctmp_lfdsp 4.2 0; 41 tree_pmax 25 10;
    42 c3_gs_b0 14.8 56.2; 44 soil_kmh 0.05 0.56; 45 tree_sla 300 150; 46 tree_ctmp_lfdsp 4.2 0;
    48 soil_sr_lc 10 4.18; 49 tree_qTc0 1.4 2.6; 50 tree_rmf0 2 0.83; 51 tree_lc0 0.002 0.005;
    53 soil_kmsl 0.39 0.9; 54 c3_qTr0 1 2.2; 55 tree_qTr0 1.4 2.6; 56 tree_ctmp_lfshd 14 5;
    57 c3_rgf 0.18 0.42; 58 tree_rmc_h 1.61 0.44; 59 c3_rgr 0.5 0.26; 60 soil_sr_lf 10 4.18;
    61 c3_f_sz_s 5 182; 63 soil_f_co2_lc 0.66 0.3; 64 c3_lc0 0.004 0.001; 65 tree_topt 10 22;
    66 tree_lf0 0.001 0.004; 70 tree_f_sz_s 64 241; 72 tree_dcd 0.086 0.2; 73 c3_alloc_abg 0.9 0.42;
    76 tree_qTf0 2.6 1.4; 77 c3_tmax 45 30; 78 tree_lue 0.08 0.044; 79 c3_root_spt_a 8.6 4.4;
    80 soil_f_co2_lf 0.78 0.42; 81 soil_sr_lr 0.3 6.12; 82 c3_rmc_h 0.83 2; 84 tree_kmci 114 366;
    85 c3_topt 10 25; 86 c3_lue 0.056 0.02; 87 soil_f_co2_lr 0.66 0.3; 89 soil_sr_hi 0.02 0.248;
    90 tree_km_nstl 0.5 0.2; 91 c3_root_spt_b 5 2.3; 92 c3_gs_b2 13.2 40.8; 93 soil_sr_hp 0.0304 0.001;
    94 soil_albedo0 0.05 0.29; 95 soil_sr_ha 4 1.72; 96 tree_f_sz_r 1 48.4; 97 c3_albedo 0.1 0.25;
    98 tree_rgf 0.1 0.34; 99 c3_qTc0 1.4 2.6; 100 c3_km_nstl 0.6 0.3; 101 tree_albedo 0.3 0.15;
    102 tree_root_spt_b 3.2 0.5; 103 tree_rgc 0.34 0.1; 104 soil_f_hm_a 0.3 0.6; 105 tree_tmin 9.999 0.9996;
    106 c3_f_sz_r 1 48.4; 108 tree_rgr 0.1 0.34; 109 c3_rmc_s 0.302 0.005; 110 tree_gs_b0 70 28.6;
    112 soil_kml 0.73 0.22; 113 tree_gs_b2 50 22.4; 114 tree_gs_b1 3000 13200; 115 tree_rmc_s 0.203 0.5;
"""
# step, then mean GPP, NPP, ER, NEP in Mg C ha-1 year-1
RUNS = (
    (0, 31.889, 19.478, 30.748, 1.141), (2, 22.551, 13.369, 21.631, 0.920), (9, 22.514, 13.352, 24.222, -1.708),
    (22, 35.786, 20.311, 38.590, -2.804), (24, 35.580, 19.633, 38.261, -2.682), (25, 35.580, 19.633, 36.337, -0.757),
    (36, 35.546, 22.362, 36.390, -0.844), (38, 32.722, 20.550, 33.401, -0.679), (41, 0.656, 0.405, 0.634, 0.022),
    (65, 4.862, 3.301, 4.704, 0.159), (66, 1.147, 0.826, 1.104, 0.043), (77, 0.956, 0.750, 0.920, 0.036),
    (78, 0.868, 0.678, 0.834, 0.034), (84, 0.741, 0.572, 0.707, 0.034), (85, 1.052, 0.763, 1.010, 0.042),
    (86, 0.989, 0.722, 0.949, 0.040), (90, 1.107, 0.821, 1.047, 0.060), (93, 1.109, 0.822, 0.968, 0.141),
    (108, 1.160, 0.695, 1.051, 0.110), (114, 1.185, 0.746, 1.069, 0.115),
)  # fmt: skip


def parameters() -> dict[str, np.ndarray]:
    """Values (run,) of the parameters of RUNS by name."""
    steps = np.array([run[0] for run in RUNS])
    moves = (entry.split() for entry in MOVES.replace("\n", " ").split(";") if entry.strip())
    return {name: np.where(steps < int(step), float(before), float(after)) for step, name, before, after in moves}
