import { type KeyStore, memoryStore } from 'latchkey'
import { describeKeyStore } from '../support/key-store-cases.ts'

describeKeyStore(() => memoryStore() as Required<KeyStore>)
