/** The chart of the report: what each guard adds to a request. */
import { init } from 'echarts'

const groups = [
  ['Express', ['hand', 'middleware', 'headerapikey-limited']],
  ['Koa', ['koa-hand', 'koa-middleware']],
]
const colours = { latchkey: '#2563eb', other: '#94a3b8' }

/** An SVG picture of the costs in a report. */
export function drawCosts({ at, targets }) {
  const bars = groups
    .flatMap(([framework, names]) => names.map((name) => [framework, targets[name]]))
    .map(([framework, { label, addedUs }]) => ({
      name: `${framework}: ${label.replace(/,? (on Koa|in memory)$/, '').replace(/:.*/, '')}`,
      value: Number(addedUs.median.toFixed(1)),
      itemStyle: { color: label.startsWith('latchkey') ? colours.latchkey : colours.other },
    }))
    .reverse()
  const chart = init(null, null, { renderer: 'svg', ssr: true, width: 760, height: 60 + 34 * bars.length })
  chart.setOption({
    animation: false,
    backgroundColor: '#ffffff',
    title: { text: 'CPU that a guard adds to a request, µs', left: 8, top: 6, textStyle: { fontSize: 14 } },
    grid: { left: 330, right: 60, top: 36, bottom: 8 },
    xAxis: { type: 'value', axisLabel: { show: false }, splitLine: { show: false } },
    yAxis: { type: 'category', data: bars.map(({ name }) => name), axisTick: { show: false } },
    series: [{ type: 'bar', data: bars, barWidth: 18, label: { show: true, position: 'right' } }],
  })
  const svg = chart.renderToSVGString()
  chart.dispose()
  return svg.replace(/(<svg[^>]*>)/, `$1<desc>${at}</desc>`)
}
