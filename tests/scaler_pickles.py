"""Pickles of a StandardScaler as other versions of scikit-learn wrote them: fitted to REAL_VALUES (a, b, c).

Text: base 85 of zlib of the file.
"""

import base64
import zlib

import numpy as np

REAL_VALUES = np.random.default_rng(0).normal(5, 2, (50, 3))
_FILES = {
    "sklearn 1.1.3, joblib 1.2.0": (
        'c-oCqJ7^R^7{0sQE1P(aycB{FG~g++kfbnTASdZOxWHYJ6v{BWJIQR^o!yz)OE`!SizF8qtIP>PS{t#mu(q*K3o9+Pw6l-MIlH%!7)AVxoqu'
        'M(`TocE&rZ5~Gnt4?O!5Z~f{f@sLq79N#JNq@bzs2&N>OMAkXVpeO%pnZ$wPVVk$fmCVsOh2FmMqhvLo`*h6k4N)28RQ)mmOdFlaFZ2y_t#H'
        'UUzMZg_@c8#-yZejE6<sX|Lpu7}$@jKTH_gT8+{OrEz4(}A2zk%?|ekqh%tSOpRpj-iiaZD3dV9<$U{kz7)~6|~hkF5(G=N-fXJgU-He$VzQ'
        'MB)4U~UccK@7JX`qfi#2$9mm@Ot_yv6ASU}6MsWai>~-QI5&)weATDdAma&sEBZzK#4C!vm3G4{00ftPE@PM_<K%<F1N{dt0XtI{rr707bo`'
        'p=VArd+o9as(JFlc%;t5ydFHkqNBJ(_LM+&;}W=wPLmR8>+fCXDLS=+J6P;g{#>u&R%qYtVwKFyh*##j{n?l5udKmMhVJNJrwBqtR;8F%-~o'
        'L+`###FJ4VAl9%ipXyza01jQ>Q70UsP}1?gwn2(4R|5k>CGmNYvVRj`;fw$YCBRaCHjXRz6i#Hq(E<_=^#=hLa2bz;I^!`sjweFWwNs?{>Yt'
        'SOVh2x!VwHMl>{j#WUUp-o`uyvqqlH&v)s^zbn{RNU+P!{KdwLVHe?*`C#hniMlJ7rGUw$%LJ*@1^eaL02ucxmho(|`#-5V!-Q9ICoF{XOGA'
        '74Hle}0*)zAHRyRvsTOZr^@!p;P(3*qu7zD}nggf=$G@?Ge?n8GS~dlPyF43Fv@!aR'
    ),
    "sklearn 1.1.3, pickle protocol 2": (
        'c-nPSTWb?R7~S-ev}^6%TCc6W=+?_>S}&=sX1!|z6($evgR;zSrta2clW%rX2~=nw+NP)=2o<5AFM^2RgAYQ*mz^J`Gn>tWi1RR)Z@xL_%=u'
        '>4TAbinkznfU6-p|!?2sVv{HMBAzznN-hW!Gjg}j4{gsPxStwZ7kv}k6hqA1Tj=2|6!eQ2$l9nC<%3eZ+J+r-)_S8C8+H~YkViC|Wx#PV^81'
        'eWJpkaYZNsZ!IOG9`McT4Wxk6xURX5~u73j8+|{LaLFaN*!_+I&#VebUKz(E)XYBi7zKAsAfX2*s#w`im`~9=cl1-6ZRwM-hv(ky;?4jYu$j'
        'p7_h)<6>+ZLY!UenGcd4S--1B|2ee#kgtZDoi;Ig3zeS6>T$aH>d;19tYtcT2Low&!XmsERVQ|zoyT!t{;tMzKdQ4#UMBxCJDn$_u2odq)|M'
        '4IYhGSv)h}+QTWnfh5JAq)Vsc#;}|JJ84n6O<nD#f(YXfWvt6HX#HwFw%6DYIP!Wz8%&?WWww%rmZV=q!SBu|s-Hx|D(QlJo+Cv><i=rJJ_5'
        '1>cCsoy~{4kCV&&M)-w)9tn5n!ykjjqrPRn$-m(t17@U*iwG_;xNJv{V+B(St~51dq=s1pS7QxxZdyW*io^te#djvg!kqyle5-|PGyF{|Y4G'
        ')laV31;l`>#nVqZgWok7-)$}jCB78p(R8xs8{f?F~A?FRa!NaeryNB)lQ@ekqmgu!2ShoACV_?qu!SLed7!(m<HKeKR0QrtywkHLN0>=oy%_'
        '}^G7ga%&OhX;|hX+5paz(Up5{{X5L8|n'
    ),
    "sklearn 1.6.1, pickle protocol 5": (
        'c-m!>F=!M)6oz*%xw{09(-;i_3qb>}%}NY}h=E(U&Vv)Y!bTb9c4ys<x3kO4Y{Ei>SVS){R`(1DX>G*L!rI103o9+Pw6l+hzMVTTr&G+%ynX'
        '+B|NEG|>hq#vnWZnthXY0hcQe5<k@`%^m_KkyKoteu>?z6vDuSL*2TZ^Su0DoG;OP0CSVbgZl*3TZnTu2bo@f0uEAYDzGOBXH2&V~?B<2M46'
        '3>&YaEYG^<|g?-#Z(AdfNl`M{FF;2a$jK+T{W4Y>t*vYWdt2-AKG>wp28h)I(BDfAEJh?2CB$dDXHAvfP>-q?~Jy0q1)}=`i;wMotA?B!F_a'
        'Y<5*Zm+deRi=_V%=t7DfaKFx`wNjAWUWDH}`ysk+kKuZGAd0mO8dTsvG%fh<tx$9%X7CgZ`T`gH5gT<2!@XSQ)gFZz<ktY2-3=L%GaCsuW(L'
        '1_V+dAvL`hM|f^X)nB?!wmlA9TqxF2WNoqAUM<C>d$H4XQLSyG;d7a_w(z`{U=8ONWcz$k|)_RIhpORxVpF8g;C_X6UXPof(`>D}R0aa{Tp;'
        '?R{vz>^aYlTe~-3FAtrct!d>MGI?8Mn+X}G94V~2>+UM#efJLoU;Ne'
    ),
}
REAL = {name: zlib.decompress(base64.b85decode(text)) for name, text in _FILES.items()}
