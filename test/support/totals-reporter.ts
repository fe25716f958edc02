import type { Reporter, TestModule } from 'vitest/node'

/** Prints the one plain line that scripts read, `N passed, N failed`, after everything else. */
export default class TotalsReporter implements Reporter {
  onTestRunEnd(
    modules: readonly TestModule[],
    unhandledErrors: readonly unknown[],
    reason: 'passed' | 'interrupted' | 'failed',
  ): void {
    const totals = countTests(modules, unhandledErrors.length)
    if (reason !== 'passed' && totals.failed === 0) totals.failed = 1
    const skipped = totals.skipped > 0 ? `, ${totals.skipped} skipped` : ''
    // The summary of the default reporter is written on the way out of this same event.
    process.once('exit', () => {
      process.stdout.write(`\n${totals.passed} passed, ${totals.failed} failed${skipped}\n`)
    })
  }
}

interface Totals {
  passed: number
  failed: number
  skipped: number
}

/** A file that cannot be collected and an error outside any test each count as one failure. */
function countTests(modules: readonly TestModule[], unhandledErrors: number): Totals {
  const totals: Totals = { passed: 0, failed: unhandledErrors, skipped: 0 }
  for (const module of modules) {
    let failedTests = 0
    for (const test of module.children.allTests()) {
      const { state } = test.result()
      if (state === 'passed') totals.passed += 1
      else if (state === 'skipped') totals.skipped += 1
      else failedTests += 1
    }
    totals.failed += failedTests
    if (failedTests === 0 && module.state() === 'failed') totals.failed += 1
  }
  return totals
}
